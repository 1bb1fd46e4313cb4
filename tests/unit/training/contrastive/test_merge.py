"""A merge is chosen by held-out queries and guards, ends as it would unbroken, and never below the base."""

import json
import time
from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer

from speed_ray.errors import UserError
from speed_ray.evaluation import eval_models
from speed_ray.recipes.training_settings import Merge
from speed_ray.storage.run import Run
from speed_ray.storage.trained_models import EMBEDDER, TUNED, Model
from speed_ray.training import model_card, plan
from speed_ray.training.contrastive import encoder, loop, merge
from speed_ray.training.contrastive.merge import ShareScores, choose_share
from tests.helpers.forked_workers import start_training
from tests.helpers.grounded_run import MINILM
from tests.helpers.paths import ROOT
from tests.helpers.tiny_training import tiny_model
from tests.unit.training.contrastive.test_loop import a_recipe, a_run, example, examples, trained

SHARES = {"merge": {"shares": [0.0, 0.5, 1.0]}, "num_train_epochs": 1}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """An embedder of sentence-transformers, which has prompts of its own."""
    folder = tmp_path_factory.mktemp("merge")
    model = encoder.load_encoder(tiny_model(folder / "language_model"), "mean", max_length=64)
    model.prompts = {"query": "query: ", "document": ""}
    model.save(str(folder / "base"))
    return folder / "base"


def rows(held_out=16, count=64):
    return [{**row, "split": "held_out" if place < held_out else "train"} for place, row in enumerate(examples(count))]


def recipe(base, **settings):
    return a_recipe(base, **{"pooling": None, **SHARES, **settings})


def weights(folder):
    return SentenceTransformer(str(folder), device="cpu").state_dict()


def facts(model):
    return model.published()["facts"]


def scores(found, guards=None):
    return {
        share: ShareScores({"one": ndcg, "two": ndcg}, guards[share] if guards else [])
        for share, ndcg in found.items()
    }


def test_the_best_share_is_chosen_and_of_equal_ones_the_smallest():
    assert choose_share(Merge(), scores({0.0: 0.4, 0.3: 0.6, 0.5: 0.6, 0.7: 0.5, 1.0: 0.3})) == 0.3


def test_training_that_helps_nothing_ends_as_the_base():
    assert choose_share(Merge(), scores({0.0: 0.4, 0.3: 0.4, 0.5: 0.3, 0.7: 0.2, 1.0: 0.1})) == 0.0


def test_a_share_that_a_guard_refuses_is_not_chosen():
    wanted = Merge(guards=[{"path": "sts.tsv", "max_drop": 0.01}])
    guards = {0.0: [0.8], 0.3: [0.795], 0.5: [0.78], 0.7: [0.7], 1.0: [0.6]}
    assert choose_share(wanted, scores({0.0: 0.4, 0.3: 0.5, 0.5: 0.6, 0.7: 0.7, 1.0: 0.8}, guards)) == 0.3


def test_a_share_that_was_tried_for_the_report_alone_is_not_chosen():
    assert choose_share(Merge(shares=[0.5], fallback_share=1.0), scores({0.0: 0.4, 0.5: 0.5, 1.0: 0.9})) == 0.5


def test_without_held_out_queries_it_is_the_share_of_the_recipe_or_a_smaller_one():
    nothing = {share: ShareScores() for share in (0.0, 0.3, 0.5, 0.7, 1.0)}
    assert choose_share(Merge(), nothing) == 0.5
    guarded = {share: ShareScores(guards=[0.8 if share < 0.5 else 0.7]) for share in nothing}
    assert choose_share(Merge(guards=[{"path": "sts.tsv"}]), guarded) == 0.3


def test_the_weights_are_the_mean_of_the_shares(base, tmp_path, monkeypatch):
    monkeypatch.setattr(merge, "choose_share", lambda *_: 0.5)
    model = trained(a_run(tmp_path / "run", rows()), recipe(base))
    tuned = weights(Model(Run(str(tmp_path / "run")), TUNED).fetch())
    before, after = weights(base), weights(model.fetch())
    moved = max((tuned[name] - before[name]).abs().max() for name in before)
    assert moved > 1e-4
    assert all(torch.allclose(after[name], (before[name] + tuned[name]) / 2, atol=1e-7) for name in before)
    names = [each.name for each in eval_models.models_of(Run(str(tmp_path / "run")), recipe(base))]
    assert names == ["base", "tuned_embedder", "embedder", "bm25"]


def test_a_share_of_nothing_publishes_the_base_with_its_own_prompts_and_says_so(base, tmp_path):
    model = trained(a_run(tmp_path / "run", rows()), recipe(base, learning_rate=1.0))
    before, after = weights(base), weights(model.fetch())
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert SentenceTransformer(str(model.fetch()), device="cpu").prompts["query"] == "query: "
    assert not facts(model)["rows"]["instructed"]
    (said,) = model_card.describe_choice(facts(model))
    assert said.startswith("Published is the base as it was") and said in (model.fetch() / "README.md").read_text()


def test_the_card_has_the_scores_of_every_share(base, tmp_path):
    model = trained(a_run(tmp_path / "run", rows()), recipe(base, num_train_epochs=4))
    card = (model.fetch() / "README.md").read_text()
    assert "| trained share | nDCG@10, held out | over the base, 95% |" in card
    assert [each["share"] for each in facts(model)["merge"]["shares"]] == [0.0, 0.5, 1.0]
    assert facts(model)["merge"]["queries"] == 16


def test_no_held_out_rows_are_said(base, tmp_path):
    model = trained(a_run(tmp_path / "run", rows(held_out=0)), recipe(base, load_best_model_at_end=True))
    assert facts(model)["merge"]["share"] == 0.5
    said = model_card.describe_choice(facts(model))
    assert all(line.startswith("No row is held out (curate.held_out), so ") for line in said) and len(said) == 2


def test_a_guard_that_cannot_be_read_is_refused_before_training(base, tmp_path):
    wanted = recipe(base, merge={"guards": [{"path": str(tmp_path / "none.tsv")}]})
    with pytest.raises(UserError, match=r"embedder\.merge\.guards: .*none\.tsv"):
        plan.plan_embedder(a_run(tmp_path / "run", rows()), wanted)


def test_guards_are_scored_and_part_of_the_plan(base, tmp_path):
    table = tmp_path / "sts.tsv"
    table.write_text("one\t0001\t5\ntwo\t9999\t1\nthree\tfour\t3\n")
    run, wanted = a_run(tmp_path / "run", rows()), recipe(base, merge={"guards": [{"path": str(table)}]})
    before = plan.training_identity(plan.plan_embedder(run, wanted))
    model = trained(run, wanted)
    assert all(set(each["guards"]) == {"sts"} for each in facts(model)["merge"]["shares"])
    table.write_text("one\t0001\t1\ntwo\t9999\t5\nthree\tfour\t3\n")
    assert plan.training_identity(plan.plan_embedder(run, wanted)) != before


@pytest.mark.parametrize("killed_at", ["merge_with_base", "model_card.publish_with_card"])
def test_a_merge_that_was_cut_short_ends_as_an_unbroken_one(base, tmp_path, monkeypatch, killed_at):
    wanted = recipe(base, load_best_model_at_end=True, save_steps=1)
    unbroken = trained(a_run(tmp_path / "unbroken", rows()), wanted)

    class Killed(Exception):
        pass

    def kill(training, *arguments, **keywords):
        if training.name == EMBEDDER:
            raise Killed
        return publish(training, *arguments, **keywords)

    publish = model_card.publish_with_card
    run = a_run(tmp_path / "cut", rows())
    with monkeypatch.context() as patched:
        patched.setattr(f"speed_ray.training.contrastive.loop.{killed_at}", kill)
        with pytest.raises(Killed):
            trained(run, wanted)
    assert Model(run, EMBEDDER).manifest() is None
    assert trained(run, wanted).published()["digest"] == unbroken.published()["digest"]


@pytest.mark.slow
def test_rows_of_which_two_in_five_are_wrong_leave_the_base_as_it_was(tmp_path):
    lines = (ROOT / "tests/golden/planted_passages.jsonl").read_text().splitlines()
    pairs = [(each["question"], each[side]) for each in map(json.loads, lines) for side in ("passage", "paraphrase")]
    made = [{**example(place), "instruction": "", "negatives": [], "query": query,
             "positive": pairs[(place + 9) % len(pairs)][1] if place % 5 < 2 else text,
             "split": "held_out" if place % 3 == 0 else "train"}
            for place, (query, text) in enumerate(pairs)]  # fmt: skip
    settings = {"num_train_epochs": 1, "global_batch_size": 8, "temperature": 0.05}
    run = a_run(tmp_path / "run", made)
    model = trained(run, recipe(MINILM, merge={}, **settings))

    def found(folder):
        model = SentenceTransformer(str(folder), device="cpu")
        asked, answers = (model.encode(list(texts), normalize_embeddings=True) for texts in zip(*pairs, strict=True))
        return ((asked @ answers.T).argmax(1) // 2 == torch.arange(len(pairs)).numpy() // 2).mean()

    assert found(Model(run, TUNED).fetch()) < found(MINILM) == found(model.fetch())
    assert facts(model)["merge"]["share"] == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"zero_stage": 3}, {"lora": {"r": 4}}])
def test_workers_together_merge_as_one_does(base, tmp_path, settings):
    chosen = {"load_best_model_at_end": True, "save_steps": 1, "num_train_epochs": 2, **settings}
    alone = trained(a_run(tmp_path / "one", rows()), recipe(base, **{**chosen, "zero_stage": 0}))
    together = recipe(base, workers={"num_workers": 2}, **chosen)
    run = a_run(tmp_path / "two", rows())
    workers = start_training(together, run, "embedder", 2)
    assert workers.wait() == 0, workers.said()
    one, other = facts(alone), facts(Model(run, EMBEDDER))
    assert [one["rows"]["best_step"], one["merge"]["share"]] == [other["rows"]["best_step"], other["merge"]["share"]]


@pytest.mark.slow
def test_a_killed_merge_ends_as_an_unbroken_one(base, tmp_path):
    wanted = recipe(base, merge={"shares": [number / 100 for number in range(101)]})
    run, unbroken = a_run(tmp_path / "cut", rows()), a_run(tmp_path / "unbroken", rows())
    killed = start_training(wanted, run, "embedder", 1)
    while not list(Path(run.uri, "models", EMBEDDER).glob("checkpoints/*/rank-0.json")):
        assert killed.processes[0].is_alive(), killed.said()
        time.sleep(0.02)
    killed.kill()
    killed.wait()
    assert Model(run, EMBEDDER).manifest() is None
    for each in (run, unbroken):
        worker = start_training(wanted, each, "embedder", 1)
        assert worker.wait() == 0, worker.said()
    resumed, whole = (Model(each, EMBEDDER).published() for each in (run, unbroken))
    assert resumed["digest"] == whole["digest"]


def test_the_best_checkpoint_is_published(base, tmp_path, monkeypatch):
    found = iter([0.2, 0.9, 0.5])
    monkeypatch.setattr(loop.HeldOut, "ndcg_by_query", lambda *_: {"one": next(found)})
    settings = {"merge": None, "load_best_model_at_end": True, "save_steps": 1, "max_steps": 3}
    model = trained(a_run(tmp_path / "run", rows()), recipe(base, **settings))
    assert facts(model)["rows"]["best_step"] == 2
    two = trained(a_run(tmp_path / "two", rows()), recipe(base, merge=None, save_steps=1, max_steps=3))
    one, other = weights(model.fetch()), weights(two.fetch())
    assert max((one[name] - other[name]).abs().max() for name in one) > 1e-6
    assert "The weights are those of step 2 of 3, the best on held-out queries." in model_card.describe_choice(
        facts(model)
    )
