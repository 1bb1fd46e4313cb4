"""Contrastive training as its user runs it: from a run's curated examples to a folder of sentence-transformers."""

import json
import signal
import time

import pytest
from sentence_transformers import SentenceTransformer
from transformers import BertConfig, BertModel

from speed_ray import recipes
from speed_ray.errors import UserError
from speed_ray.records import CURATED, EXAMPLE, SCORED, content_id
from speed_ray.stages.driver_stage import RowResult, publish_rows
from speed_ray.storage.attempt import Attempt
from speed_ray.storage.run import CURATED_EXAMPLES, EXAMPLES, SCORED_EXAMPLES, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import RECORDS, Counts
from speed_ray.training import plan
from speed_ray.training.contrastive import encoder
from speed_ray.training.train_model import train_model
from tests.helpers.forked_workers import start_training
from tests.helpers.tiny_training import ignore, tiny_model

INSTRUCTION = "Write the number as digits"
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def example(number, kind="retrieval", negatives=1, split="train", instruction=INSTRUCTION):
    """A number in words, in digits, and wrong digits: enough to be learnt."""
    digits = f"{number:04d}"
    wrong = f"{(number * 7 + 1) % 10_000:04d}"
    row_id = content_id("example", kind, str(number))
    texts = {"query": " ".join(WORDS[int(digit)] for digit in digits), "positive": digits}
    fixed = dict.fromkeys(("topic", "language", "model"), "-")
    return {
        "id": row_id, "row_id": row_id, "parent_id": "-", "kind": kind, **fixed, **texts,
        "instruction": instruction, "negatives": [wrong] * negatives, "split": split,
    }  # fmt: skip


def examples(count=100):
    return [example(number * 37 % 10_000) for number in range(count)]


def scored(rows):
    """A judge's scores: sure of some rows, unsure of others."""
    fixed = {"gates": [], "relabelled_from": "", "dropped": [], "further_positives": []}
    return [
        {**row, **fixed,
         "scores": [{"judge": "a", "positive": index % 5, "further_positives": [],
                     "negatives": [-1.0] * len(row["negatives"])}]}
        for index, row in enumerate(rows)
    ]  # fmt: skip


def a_run(folder, rows, shard_rows=16):
    run = Run(str(folder))
    for name, schema in ((CURATED_EXAMPLES, CURATED), (SCORED_EXAMPLES, SCORED))[: 1 + ("scores" in rows[0])]:
        passed = (RowResult(row["id"], row, None) for row in rows)
        publish_rows(run.artifact(name), Plan(name, len(rows), shard_rows), schema, passed)
    return run


def a_recipe(model, **settings):
    embedder = {
        "model": str(model), "pooling": "last", "global_batch_size": 16, "micro_batch_size": 8,
        "learning_rate": 1e-3, "num_train_epochs": 2,
        "precision": "fp32", "lora": None, "max_length": 64, "save_steps": 1000, **settings,
    }  # fmt: skip
    tree = {
        "topics": {"source": "topics.txt"},
        "teacher": {"engine": "scripted"},
        "generator": {"engine": "vllm", "model": str(model)},
        "embedder": embedder,
        **({"score": {}} if settings.keys() & {"loss", "weight_by_score"} else {}),
    }
    return recipes.validate(tree, "the test")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("embedder") / "base")


def trained(run, recipe, report=ignore):
    train_model(plan.plan_embedder(run, recipe), report)
    return plan.plan_embedder(run, recipe).model


def history(model):
    return [json.loads(line) for line in model.store.get(f"{model.path}/metrics.jsonl").splitlines()]


def weights(model):
    return dict(SentenceTransformer(str(model.fetch()), device="cpu").named_parameters())


def distance(one, other):
    first, second = weights(one), weights(other)
    return max((first[name] - second[name]).abs().max().item() for name in first)


def test_the_loss_goes_down_and_the_folder_loads(base, tmp_path):
    model = trained(a_run(tmp_path / "run", examples()), a_recipe(base, num_train_epochs=6))
    losses = [logged["loss"] for logged in history(model)]
    assert losses[-1] < 0.7 * losses[0]
    loaded = SentenceTransformer(str(model.fetch()), device="cpu")
    assert loaded.prompts["query"].endswith("\nQuery: ") and loaded.prompts["document"] == ""
    query = f"Instruct: {INSTRUCTION}\nQuery: one two three four"
    near, far = loaded.similarity(loaded.encode(query), loaded.encode(["1234", "9876"]))[0]
    assert near > far


def test_a_set_without_instructions_gives_a_model_without_prompts(base, tmp_path):
    rows = [{**row, "instruction": ""} for row in examples(32)]
    model = trained(a_run(tmp_path / "run", rows), a_recipe(base, num_train_epochs=1))
    assert not any(SentenceTransformer(str(model.fetch()), device="cpu").prompts.values())


@pytest.mark.parametrize("instruction", ["", INSTRUCTION])
def test_a_folders_prompts_are_trained_as_they_are_used(base, tmp_path, monkeypatch, instruction):
    folder = encoder.load_encoder(base, "mean", max_length=64)
    folder.prompts = {"query": "query: ", "document": "passage: ", "other": "other: "}
    folder.default_prompt_name = "other"
    folder.set_pooling_include_prompt(False)
    folder.save(str(tmp_path / "folder"))
    rows = [example(number * 37 % 10_000, instruction=instruction) for number in range(16)]
    embedded, forward = {}, encoder.Encoder.forward

    def remember(self, input_ids, attention_mask):
        vectors = forward(self, input_ids, attention_mask)
        for ids, mask, vector in zip(input_ids, attention_mask, vectors, strict=True):
            embedded[self.model.tokenizer.decode(ids[mask.bool()], skip_special_tokens=True)] = vector.detach()
        return vectors

    monkeypatch.setattr(encoder.Encoder, "forward", remember)
    frozen = {"learning_rate": 1e-30, "weight_decay": 0, "num_train_epochs": 1, "pooling": None}
    model = trained(a_run(tmp_path / "run", rows), a_recipe(tmp_path / "folder", **frozen))
    loaded = SentenceTransformer(str(model.fetch()), device="cpu")
    query = embedded[(encoder.format_query(INSTRUCTION, "") if instruction else "query: ") + rows[0]["query"]]
    prompt = encoder.format_query(INSTRUCTION, "") if instruction else None
    assert loaded.encode_query(rows[0]["query"], prompt=prompt, convert_to_tensor=True).sub(query).abs().max() < 1e-5
    document = loaded.encode_document(rows[0]["positive"], convert_to_tensor=True)
    assert document.sub(embedded["passage: " + rows[0]["positive"]]).abs().max() < 1e-5


def test_rows_that_are_held_out_are_not_trained_on(base, tmp_path):
    rows = examples(40)
    for row in rows[:8]:
        row["split"] = "held_out"
    run = a_run(tmp_path / "run", rows)
    model = trained(run, a_recipe(base, num_train_epochs=1))
    assert model.published()["facts"]["rows"]["steps"] == 2


def test_too_few_rows_are_left_to_train_on(base, tmp_path):
    rows = [{**row, "split": "held_out" if place < 8 else "train"} for place, row in enumerate(examples(40))]
    with pytest.raises(UserError, match=r"has 32 rows to train embedder on, and one step needs 40"):
        trained(a_run(tmp_path / "run", rows), a_recipe(base, global_batch_size=40, num_train_epochs=1))


@pytest.mark.parametrize("settings", [{"lora": {"r": 4}}, {"gradient_checkpointing": True}, {"pooling": "mean"}])
def test_ways_to_train(base, tmp_path, settings):
    model = trained(a_run(tmp_path / "run", examples(48)), a_recipe(base, **settings))
    assert SentenceTransformer(str(model.fetch()), device="cpu").encode("one").shape == (64,)
    assert not list(model.fetch().rglob("adapter*")), "a plain model is published"


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "kl", "weight_by_score": True, "temperature": 0.1},
        {"loss": "margin_mse", "temperature": 0.1, "matryoshka_dims": [64, 16]},
        {"guide": {}, "no_in_batch_negatives": ["retrieval"]},
    ],
)
def test_other_losses_go_down_too(base, tmp_path, settings):
    model = trained(a_run(tmp_path / "run", scored(examples(96))), a_recipe(base, num_train_epochs=6, **settings))
    losses = [logged["loss"] for logged in history(model)]
    assert sum(losses[-6:]) < 0.8 * sum(losses[:6])


def test_a_judge_that_agrees_with_the_base_teaches_nothing_whatever_its_scale(base, tmp_path):
    model = encoder.load_encoder(base, "last", max_length=64)
    rows = scored(examples(64))
    for row in rows:
        row["negatives"] = [f"{int(row['positive']) + 1:04d}", "one two three"]
        query = model.encode(f"Instruct: {INSTRUCTION}\nQuery: {row['query']}")
        cosines = model.similarity(query, model.encode([row["positive"], *row["negatives"]]))[0].tolist()
        positive, *negatives = [10 * cosine + 7 for cosine in cosines]
        row["scores"] = [{"judge": "a", "positive": positive, "further_positives": [], "negatives": negatives}]
    settings = {"loss": "kl", "infonce_weight": 0, "temperature": 0.01, "num_train_epochs": 1}
    first, *_ = history(trained(a_run(tmp_path / "run", rows), a_recipe(base, **settings)))
    assert first["loss"] < 1e-4


def test_a_guide_that_is_no_embedder(base, tmp_path):
    with pytest.raises(UserError, match=r"embedder\.guide\.model: .* holds no modules\.json"):
        plan.plan_embedder(a_run(tmp_path / "run", examples(32)), a_recipe(base, guide={"model": str(base)}))


@pytest.mark.parametrize("settings", [{}, {"loss": "kl", "weight_by_score": True, "guide": {}}])
def test_a_training_that_was_cut_short_ends_as_an_unbroken_one(base, tmp_path, settings):
    rows, recipe = scored(examples(100)), a_recipe(base, save_steps=5, **settings)
    unbroken = trained(a_run(tmp_path / "unbroken", rows), recipe)

    class Cut(Exception):
        pass

    def cut(metrics):
        if metrics["step"] == 8:
            raise Cut

    run = a_run(tmp_path / "cut", rows)
    with pytest.raises(Cut):
        trained(run, recipe, cut)
    seen = []
    resumed = trained(run, recipe, lambda metrics: seen.append(metrics["step"]))
    assert seen[0] == 5
    assert history(resumed)[-1]["batches"] == history(unbroken)[-1]["batches"]
    assert distance(resumed, unbroken) < 1e-6


def test_a_training_that_ended_after_its_last_step_publishes_the_same_files(base, tmp_path, monkeypatch):
    unbroken = trained(a_run(tmp_path / "unbroken", examples(32)), a_recipe(base))
    run = a_run(tmp_path / "cut", examples(32))
    with monkeypatch.context() as patched:
        patched.setattr("speed_ray.training.contrastive.loop.model_card.publish_with_card", None)
        with pytest.raises(TypeError):
            trained(run, a_recipe(base))
    assert trained(run, a_recipe(base)).published()["digest"] == unbroken.published()["digest"]


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"zero_stage": 2}, {"zero_stage": 3}, {"lora": {"r": 4}}])
def test_workers_together_make_the_model_of_one(base, tmp_path, settings):
    rows = examples(61)  # the last batch of an epoch has 13: it cannot be divided evenly among two
    alone = trained(a_run(tmp_path / "one", rows), a_recipe(base, **{**settings, "zero_stage": 0}))
    recipe = a_recipe(base, workers={"num_workers": 2}, **settings)
    workers = start_training(recipe, a_run(tmp_path / "two", rows), "embedder", 2)
    assert workers.wait() == 0, workers.said()
    together = plan.plan_embedder(Run(str(tmp_path / "two")), recipe).model
    assert history(together)[-1]["batches"] == history(alone)[-1]["batches"]
    assert history(together)[-1]["loss"] == pytest.approx(history(alone)[-1]["loss"], rel=1e-3)
    assert distance(together, alone) < 2e-5


@pytest.mark.slow
def test_sharded_states_are_resumed(base, tmp_path):
    rows, recipe = examples(64), a_recipe(base, zero_stage=2, save_steps=3, workers={"num_workers": 2})
    run = a_run(tmp_path / "run", rows)
    killed = start_training(recipe, run, "embedder", 2)
    while "step 5" not in killed.said():
        time.sleep(0.02)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL, "they were killed too late to prove anything"
    resumed = start_training(recipe, run, "embedder", 2)
    assert resumed.wait() == 0, resumed.said()
    began = next(line for line in resumed.said().splitlines() if line.startswith("step"))
    assert int(began.split()[1]) >= 3
    whole = a_run(tmp_path / "whole", rows)
    assert start_training(recipe, whole, "embedder", 2).wait() == 0
    resumed, unbroken = (plan.plan_embedder(each, recipe).model for each in (run, whole))
    assert history(resumed)[-1]["batches"] == history(unbroken)[-1]["batches"]
    assert distance(resumed, unbroken) < 1e-6


@pytest.mark.slow
def test_weights_that_no_vector_depends_on_hold_up_no_worker(tmp_path):
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    base = tiny_model(tmp_path / "base")
    BertModel(BertConfig(vocab_size=300, **shape)).save_pretrained(base)
    recipe = a_recipe(base, pooling="mean", workers={"num_workers": 2}, num_train_epochs=1)
    workers = start_training(recipe, a_run(tmp_path / "run", examples(32)), "embedder", 2)
    assert workers.wait() == 0, workers.said()


def test_fewer_rows_than_a_batch(base, tmp_path):
    with pytest.raises(
        UserError, match=r"10 rows to train embedder on, and one step needs 16 \(embedder.global_batch_size: 16"
    ):
        trained(a_run(tmp_path / "run", examples(10)), a_recipe(base))


def test_kinds_that_fill_no_batch_are_trained_on_as_often_as_the_others(base, tmp_path):
    rows = [*examples(40), *(example(number, "classification") for number in range(5))]
    rows += [example(number, "matching_short", negatives=0) for number in range(7)]
    facts = trained(a_run(tmp_path / "run", rows), a_recipe(base, num_train_epochs=3)).published()["facts"]["rows"]
    assert facts["trained"] == {"classification": 15, "matching_short": 21, "retrieval": 120}
    assert facts["steps"] == 3 * (3 + 1 + 1)


def test_a_kind_that_counts_its_own_negatives_alone_and_has_none(base, tmp_path):
    rows = examples(32) + [example(number, "classification", negatives=0) for number in range(16)]
    seen = {}
    model = trained(a_run(tmp_path / "run", rows), a_recipe(base, num_train_epochs=1), seen.update)
    facts = model.published()["facts"]["rows"]
    assert facts["steps"] == 2 and facts["trained"] == {"retrieval": 32}
    assert facts["left_out/classification"] == seen["left_out/classification"] == 16


def a_stream(folder, rows):
    """Commit rows as a synthesis does; nothing is published."""
    artifact = Run(str(folder)).artifact(EXAMPLES)
    streamed = Plan(EXAMPLES, len(rows), 16, input="tasks", mix=dict.fromkeys((row["kind"] for row in rows), 1))
    artifact.ensure_plan(streamed)
    for shard in range(streamed.shards):
        attempt = Attempt(artifact, streamed, shard, 0)
        written = [{name: rows[row][name] for name in EXAMPLE.names} for row in streamed.rows_of(shard)]
        attempt.write(RECORDS, written, EXAMPLE)
        attempt.commit([row["row_id"] for row in written], Counts(accepted=len(written), records=len(written)))
    return Run(str(folder))


@pytest.mark.parametrize(("max_steps", "steps"), [(None, 4), (2, 2)])
def test_a_stream_ends_with_the_kinds_that_fill_no_batch(base, tmp_path, max_steps, steps):
    rows = [*examples(40), *(example(number, "classification") for number in range(5))]
    model = trained(a_stream(tmp_path / "run", rows), a_recipe(base, stream=True, max_steps=max_steps))
    facts = model.published()["facts"]["rows"]
    assert facts["steps"] == steps
    assert max_steps or facts["trained"] == {"classification": 5, "retrieval": 40}


def test_a_stream_of_which_a_shard_is_made_anew_is_trained_on_anew(base, tmp_path, caplog):
    run, recipe = a_stream(tmp_path / "run", examples(40)), a_recipe(base, stream=True)
    artifact, training = run.artifact(EXAMPLES), plan.plan_embedder(run, recipe)
    first = trained(run, recipe).published()["digest"]
    assert not training.begin()
    artifact.withdraw(artifact.commit_of(1))
    attempt = Attempt(artifact, artifact.plan(), 1, 1)
    others = [example(number, "retrieval") for number in range(100, 116)]
    attempt.write(RECORDS, [{name: row[name] for name in EXAMPLE.names} for row in others], EXAMPLE)
    attempt.commit([row["row_id"] for row in others], Counts(accepted=16, records=16))

    assert training.begin(), "a model of rows that are no more is taken for one of those that are"
    assert "is trained anew" in caplog.text
    model = trained(run, recipe)
    assert model.published()["digest"] != first and not training.begin()
    assert model.published()["facts"]["data"]["withdrawals"] == {"1": 1}


def test_dimensions_wider_than_the_model(base, tmp_path):
    with pytest.raises(UserError, match=r"embedder\.matryoshka_dims: 128 is more than the 64"):
        trained(a_run(tmp_path / "run", examples(32)), a_recipe(base, matryoshka_dims=[128, 32]))


def test_texts_that_are_cut_are_counted(base, tmp_path):
    rows = examples(32)
    rows[3]["positive"] = "1234 " * 100
    model = trained(a_run(tmp_path / "run", rows), a_recipe(base, num_train_epochs=1, max_length=200))
    assert model.published()["facts"]["rows"]["cut"] == 1


def test_a_loss_that_is_no_number_names_the_step_and_the_rows(base, tmp_path):
    with pytest.raises(
        UserError, match=r"(loss|gradient norm) of step \d+ is (nan|inf)(.|\n)*embedder\.learning_rate"
    ):
        trained(
            a_run(tmp_path / "run", examples(64)),
            a_recipe(base, learning_rate=1e30, num_train_epochs=4, max_grad_norm=1e30),
        )


def test_a_recipe_without_an_embedder(base, tmp_path):
    recipe = a_recipe(base).model_copy(update={"embedder": None})
    with pytest.raises(UserError, match=r"embedder: this recipe has no such section"):
        plan.plan_embedder(a_run(tmp_path / "run", examples(16)), recipe)
