"""Supervised fine-tuning: the loss that it takes, the weights that it makes, and how it stops and goes on."""

import json
import random

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from speed_ray.errors import UserError
from speed_ray.storage.run import DRAFTS, Run
from speed_ray.storage.trained_models import Model
from speed_ray.training import plan, tokenize
from speed_ray.training.train_model import train_model
from tests.helpers.forked_workers import start_training
from tests.helpers.tiny_training import ignore, tiny_model, tiny_recipe, tiny_rows, write_rows

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture
def run(tmp_path):
    return drafted(tmp_path / "run")


def drafted(folder):
    run = Run(str(folder))
    write_rows(run, DRAFTS, tiny_rows(80))
    return run


def weights(run, name="junior"):
    (file,) = Model(run, name).fetch().glob("*.safetensors")
    return load_file(file)


def history(run, name="junior"):
    return [json.loads(line) for line in run.store.get(f"models/{name}/metrics.jsonl").splitlines()]


def furthest(one, other):
    """The largest difference of any weight."""
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


def test_loss_is_on_the_replies_alone(run, base):
    training = plan.plan_junior(run, tiny_recipe(base, max_steps=1, eval_fraction=0.0))
    train_model(training, ignore)

    tokenizer = AutoTokenizer.from_pretrained(base)
    trained = tokenize.tokenize_rows(training, tokenizer, context_length=256).train
    network = AutoModelForCausalLM.from_pretrained(base)
    log_probs = []
    for place in tokenize.shuffled_order(len(trained), 8, training.seed):
        prompt, reply = trained[place]["prompt_ids"], trained[place]["reply_ids"]
        logits = network(torch.tensor([prompt + reply])).logits[0, len(prompt) - 1 : -1]
        log_probs += logits.log_softmax(-1)[range(len(reply)), reply].tolist()

    (first,) = [logged for logged in history(run) if "loss" in logged]
    assert first["loss"] == pytest.approx(-sum(log_probs) / len(log_probs), abs=1e-5)


def test_packed_rows_see_only_themselves(base, tmp_path):
    made = {}
    for packing in (False, True):
        run = drafted(tmp_path / f"packing-{packing}")
        train_model(plan.plan_junior(run, tiny_recipe(base, packing=packing, max_steps=5)), ignore)
        made[packing] = weights(run)
    assert furthest(made[False], made[True]) < 1e-5


def test_precision_and_checkpointing_of_gradients(base, tmp_path):
    run = drafted(tmp_path / "run")
    train_model(plan.plan_junior(run, tiny_recipe(base, precision="bf16", gradient_checkpointing=True)), ignore)
    assert {weight.dtype for weight in weights(run).values()} == {torch.bfloat16}


def test_an_adapter_is_published_as_one(run, base):
    train_model(plan.plan_junior(run, tiny_recipe(base, lora={"r": 4, "lora_dropout": 0.1})), ignore)
    folder = Model(run, "junior").fetch()
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == str(base)
    assert not list(folder.glob("*.bin")), "pickle"

    ids = torch.tensor([[1, 2, 3]])
    network = AutoModelForCausalLM.from_pretrained(base)
    before = network(ids).logits
    assert not torch.allclose(before, PeftModel.from_pretrained(network, folder)(ids).logits)


def test_a_model_comes_with_its_tokenizer_and_its_card(run, base):
    reports = []
    train_model(plan.plan_junior(run, tiny_recipe(base)), reports.append)
    folder = Model(run, "junior").fetch()
    assert AutoTokenizer.from_pretrained(folder).chat_template == AutoTokenizer.from_pretrained(base).chat_template
    card = (folder / "README.md").read_text()
    assert plan.data_identity(plan.plan_junior(run, tiny_recipe(base)))["sha256"] in card
    assert reports[0] == {"step": 0, "steps": 4, "rows": 77, "held_out": 3}
    assert next(logged["step"] for logged in reports if "eval_loss" in logged) == 0, "the first loss is the base's own"
    assert run.store.names("models/junior/logs"), "nothing for TensorBoard"


def test_a_published_model_is_not_trained_again(run, base):
    training = plan.plan_junior(run, tiny_recipe(base, max_steps=1))
    train_model(training, ignore)
    reports = []
    train_model(training, reports.append)
    assert reports == []


class Killed(Exception):
    """What a test throws into a training."""


def killed_at(step):
    def report(metrics):
        if metrics["step"] == step and "loss" in metrics:
            raise Killed

    return report


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_resumed_as_if_unbroken(base, tmp_path, dropout):
    settings = {"save_steps": 4, "max_steps": 10, "num_train_epochs": 2.0, "lora": {"r": 4, "lora_dropout": dropout}}
    recipe = tiny_recipe(base, **settings)
    unbroken, broken = drafted(tmp_path / "unbroken"), drafted(tmp_path / "broken")
    train_model(plan.plan_junior(unbroken, recipe), ignore)

    reports = []
    for step in (3, 7):
        with pytest.raises(Killed):
            train_model(plan.plan_junior(broken, recipe), killed_at(step))
    train_model(plan.plan_junior(broken, recipe), reports.append)

    assert min(metrics["step"] for metrics in reports[1:]) == 5, "more was redone than since the checkpoint of step 4"
    assert furthest(weights(unbroken), weights(broken)) == 0.0
    digests = {Model(run, "junior").published()["digest"] for run in (unbroken, broken)}
    assert len(digests) == 1, "the card or the adapter's config tells that the training was resumed"
    steps = [logged["step"] for logged in history(broken) if "loss" in logged]
    assert steps == list(range(1, 11)), "a step is missing from the metrics, or there twice"


@pytest.mark.parametrize("zero", [0, 2, 3])
def test_two_workers_make_the_weights_of_one(base, tmp_path, zero):
    one, two = drafted(tmp_path / "one"), drafted(tmp_path / "two")
    train_model(plan.plan_junior(one, tiny_recipe(base)), ignore)
    workers = start_training(tiny_recipe(base, zero_stage=zero, micro_batch_size=2), two, "junior", 2)
    assert workers.wait() == 0, workers.said()
    assert furthest(weights(one), weights(two)) < 1e-5


def test_a_diverged_training_says_where(run, base):
    training = plan.plan_junior(
        run, tiny_recipe(base, learning_rate=1e38, warmup_ratio=0.0, save_steps=1, eval_fraction=0.0)
    )
    with pytest.raises(UserError) as told:
        train_model(training, ignore)
    said = str(told.value)
    trained = tokenize.tokenize_rows(training, AutoTokenizer.from_pretrained(base), context_length=256).train
    places = tokenize.sort_by_length_within_batch(
        tokenize.shuffled_order(len(trained), 16, training.seed), trained, batch_size=8
    )
    second = [trained[place]["row_id"] for place in places[8:]]
    assert "the loss of step 2 is" in said
    assert f"Its rows: {', '.join(second)}\n" in said
    assert "The last good checkpoint: " in said and "checkpoints/00000001-" in said


def test_gpus_that_are_not_there(run, base, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="this machine has no GPU"):
        train_model(plan.plan_junior(run, tiny_recipe(base, workers={"num_gpus": 1.0})), ignore)


def test_another_recipe_begins_anew_until_the_end_and_is_then_refused(run, base):
    with pytest.raises(Killed):
        train_model(plan.plan_junior(run, tiny_recipe(base, save_steps=1)), killed_at(3))
    steps = []
    train_model(plan.plan_junior(run, tiny_recipe(base, learning_rate=2e-3)), lambda seen: steps.append(seen["step"]))
    assert steps[:3] == [0, 0, 1], "no checkpoint of the other recipe is gone on from"
    with pytest.raises(UserError, match=r"settings\.learning_rate: was 0\.002, now 0\.003"):
        train_model(plan.plan_junior(run, tiny_recipe(base, learning_rate=3e-3)), ignore)


def test_the_seed_decides(base, tmp_path):
    made = []
    for place in range(2):
        random.seed(place)  # whatever else happened in the process
        torch.manual_seed(place)
        run = drafted(tmp_path / str(place))
        train_model(plan.plan_junior(run, tiny_recipe(base, lora={"r": 4, "lora_dropout": 0.2})), ignore)
        made.append(weights(run))
    assert furthest(*made) == 0.0
