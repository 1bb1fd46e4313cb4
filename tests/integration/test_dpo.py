"""Direct preference optimisation: its losses and its reference against a few lines of PyTorch, and what it reads."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch.nn.functional import logsigmoid, relu
from transformers import AutoModelForCausalLM, AutoTokenizer

from speed_ray.errors import Interrupted
from speed_ray.storage.run import DRAFTS, REVISION_PAIRS, REVISIONS, VERDICTS, Run
from speed_ray.storage.trained_models import Model, generator_with_trained_weights
from speed_ray.training import plan, reference_logps, tokenize
from speed_ray.training.train_model import train_model
from tests.helpers.forked_workers import start_training
from tests.helpers.tiny_training import ignore, tiny_model, tiny_recipe, tiny_rows, write_rows

pytestmark = pytest.mark.slow
BETA = 0.3


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture
def run(tmp_path):
    return aligned(tmp_path / "run")


def aligned(folder):
    run = Run(str(folder))
    write_rows(run, DRAFTS, tiny_rows(80))
    write_rows(run, VERDICTS, tiny_rows(80))
    return run


def both(run, recipe, report=ignore):
    """Train the junior, then the senior; return the senior's training."""
    train_model(plan.plan_junior(run, recipe), ignore)
    senior = plan.plan_senior(run, recipe)
    train_model(senior, report)
    return senior


def history(run, name):
    return [json.loads(line) for line in run.store.get(f"models/{name}/metrics.jsonl").splitlines()]


def log_p(network, row, answer):
    """The log-probability of a reply after its prompt: a float64 sum over its tokens, and their number."""
    prompt, reply = row["prompt_ids"], row[answer]
    with torch.no_grad():
        logits = network(torch.tensor([prompt + reply])).logits[0, len(prompt) - 1 : -1].double()
    return logits.log_softmax(-1)[range(len(reply)), reply].sum().item(), len(reply)


def stored_reference(run):
    (key,) = {name.partition("/")[0] for name in run.store.names("reference")}
    names = [name for name in run.store.names(f"reference/{key}") if name != "_MANIFEST.json"]
    return {row: pair for name in names for row, pair in json.loads(run.store.get(f"reference/{key}/{name}")).items()}


def test_the_reference_is_the_junior(run, base):
    senior = both(run, tiny_recipe(base, max_steps=2))
    junior = AutoModelForCausalLM.from_pretrained(Model(run, "junior").fetch())
    read = tokenize.tokenize_rows(senior, AutoTokenizer.from_pretrained(base), context_length=256)
    stored = stored_reference(run)
    assert set(stored) == {row["row_id"] for row in read.train + read.held_out}
    for row in (*read.train[:8], *read.held_out):
        expected = [log_p(junior, row, answer)[0] for answer in ("chosen_ids", "rejected_ids")]
        assert stored[row["row_id"]] == pytest.approx(expected, abs=1e-3)  # of about 200


SMOOTHING = 0.2


@pytest.mark.parametrize(
    ("settings", "loss"),
    [
        ({"loss_type": "sigmoid"}, lambda x, _: -logsigmoid(BETA * x)),
        (
            {"loss_type": "sigmoid", "label_smoothing": SMOOTHING},
            lambda x, _: -(1 - SMOOTHING) * logsigmoid(BETA * x) - SMOOTHING * logsigmoid(-BETA * x),
        ),
        (
            {"loss_type": "robust", "label_smoothing": SMOOTHING},
            lambda x, _: (
                (-(1 - SMOOTHING) * logsigmoid(BETA * x) + SMOOTHING * logsigmoid(-BETA * x)) / (1 - 2 * SMOOTHING)
            ),
        ),
        ({"loss_type": "hinge"}, lambda x, _: relu(1 - BETA * x)),
        ({"loss_type": "ipo"}, lambda _, mean: (mean - 1 / (2 * BETA)) ** 2),
    ],
    ids=["sigmoid", "smoothed", "robust", "hinge", "ipo"],
)
def test_losses(run, base, settings, loss):
    """The loss of the second step, from the weights after the first."""
    recipe = tiny_recipe(base, beta=BETA, max_steps=2, save_steps=1, eval_fraction=0.0, warmup_ratio=0.0, **settings)
    senior = both(run, recipe)

    checkpoint = next((run.store.root / "models" / "senior" / "checkpoints").glob("00000001-*")) / "0"
    policy = AutoModelForCausalLM.from_pretrained(checkpoint)
    junior = AutoModelForCausalLM.from_pretrained(Model(run, "junior").fetch())
    trained = tokenize.tokenize_rows(senior, AutoTokenizer.from_pretrained(base), context_length=256).train
    expected = []
    for place in tokenize.sort_by_length_within_batch(
        tokenize.shuffled_order(len(trained), 16, senior.seed), trained, 8
    )[8:]:
        ratios = []
        for answer in ("chosen_ids", "rejected_ids"):
            ours, tokens = log_p(policy, trained[place], answer)
            ratios.append((ours - log_p(junior, trained[place], answer)[0], tokens))
        (chosen, its_tokens), (rejected, other_tokens) = ratios
        expected.append(
            loss(torch.tensor(chosen - rejected), torch.tensor(chosen / its_tokens - rejected / other_tokens))
        )
    (second,) = [logged["loss"] for logged in history(run, "senior") if logged["step"] == 2 and "loss" in logged]
    assert second == pytest.approx(torch.stack(expected).mean().item(), abs=1e-4)


def test_the_senior_is_the_junior_trained_on(run, base):
    reports = []
    both(run, tiny_recipe(base, lora={"r": 4}, max_steps=3), reports.append)
    first = next(metrics for metrics in reports if "loss" in metrics)
    assert first["rewards/margins"] == pytest.approx(0.0, abs=1e-4), "it did not begin as its own reference"

    ids = torch.tensor([[1, 2, 3]])
    logits = []
    for name in (None, "junior", "senior"):
        network = AutoModelForCausalLM.from_pretrained(base)  # one base for both
        adapted = PeftModel.from_pretrained(network, Model(run, name).fetch()) if name else network
        logits.append(adapted(ids).logits)
    assert not torch.allclose(logits[0], logits[1], atol=1e-4)
    assert not torch.allclose(logits[1], logits[2], atol=1e-4)


def test_an_adapter_on_a_trained_model(run, base):
    """The junior has weights of its own; the senior is an adapter on these, and is served as one."""
    recipe, reports = tiny_recipe(base), []
    recipe = recipe.model_copy(update={"senior": tiny_recipe(base, lora={"r": 4}, learning_rate=1e-2).senior})
    both(run, recipe, reports.append)
    first = next(metrics for metrics in reports if "loss" in metrics)
    assert first["rewards/margins"] == pytest.approx(0.0, abs=1e-4), "it did not begin as its own reference"

    junior, senior = Model(run, "junior"), Model(run, "senior")
    engine = generator_with_trained_weights(run, recipe, "senior")
    assert (engine.model, engine.adapter) == (junior.where, senior.where)
    assert (
        json.loads((senior.fetch() / "adapter_config.json").read_text())["base_model_name_or_path"]
        == "./models/junior"
    )
    ids = torch.tensor([[1, 2, 3]])
    before = AutoModelForCausalLM.from_pretrained(junior.fetch())
    after = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(junior.fetch()), senior.fetch())
    assert not torch.allclose(before(ids).logits, after(ids).logits, atol=1e-4)


def test_an_adapter_on_a_trained_model_is_trained_on(run, base):
    """As a revisor is by DPO: what it begins with, and what it is compared with, is the adapter and not the junior."""
    write_rows(run, REVISIONS, tiny_rows(80))
    write_rows(run, REVISION_PAIRS, tiny_rows(80))
    lora = tiny_recipe(base, lora={"r": 4}, learning_rate=1e-2).revisor
    recipe = tiny_recipe(base).model_copy(update={"revisor": lora.model_copy(update={"start": "junior"})})
    train_model(plan.plan_junior(run, recipe), ignore)
    supervised, preferring = plan.plan_revisor(run, recipe)
    train_model(supervised, ignore)
    train_model(preferring, ignore)

    junior = AutoModelForCausalLM.from_pretrained(Model(run, "junior").fetch())
    begun = PeftModel.from_pretrained(junior, Model(run, "revisor_sft").fetch())
    read = tokenize.tokenize_rows(preferring, AutoTokenizer.from_pretrained(base), context_length=256)
    stored = stored_reference(run)
    for row in read.train[:8]:
        expected = [log_p(begun, row, answer)[0] for answer in ("chosen_ids", "rejected_ids")]
        assert stored[row["row_id"]] == pytest.approx(expected, abs=1e-3)
    assert generator_with_trained_weights(run, recipe, "revisor").model == Model(run, "junior").where


def test_a_second_training_computes_no_reference(run, base, monkeypatch):
    both(run, tiny_recipe(base, max_steps=1))
    for name in run.store.names("models/senior"):
        run.store.delete(f"models/senior/{name}")
    monkeypatch.setattr(reference_logps, "_compute", lambda *_: pytest.fail("the reference was computed again"))
    train_model(plan.plan_senior(run, tiny_recipe(base, max_steps=1, beta=0.5)), ignore)


def test_an_unfinished_reference_is_finished(run, base, monkeypatch):
    both(run, tiny_recipe(base, max_steps=1))
    before = stored_reference(run)
    folder = next((run.store.root / "reference").iterdir())
    (folder / "_MANIFEST.json").unlink()
    (folder / "00000001.json").unlink()
    for name in run.store.names("models/senior"):
        run.store.delete(f"models/senior/{name}")
    done = []
    compute = reference_logps._chunk_log_probs
    monkeypatch.setattr(reference_logps, "_chunk_log_probs", lambda *with_rows: done.append(1) or compute(*with_rows))
    train_model(plan.plan_senior(run, tiny_recipe(base, max_steps=1)), ignore)
    assert done == [1], "what was stored was computed again"
    assert stored_reference(run) == before


def test_a_damaged_reference_is_not_read(run, base):
    both(run, tiny_recipe(base, max_steps=1))
    folder = next((run.store.root / "reference").iterdir())
    (folder / "00000000.json").write_text("{}")
    for name in run.store.names("models/senior"):
        run.store.delete(f"models/senior/{name}")
    with pytest.raises(Interrupted, match=r"00000000\.json is missing or damaged"):
        train_model(plan.plan_senior(run, tiny_recipe(base, max_steps=1)), ignore)


@pytest.mark.parametrize(("zero", "lora"), [(2, {"r": 4}), (3, None)], ids=["2-lora", "3-full"])
def test_two_workers_make_the_weights_of_one(base, tmp_path, zero, lora):
    one, two = aligned(tmp_path / "one"), aligned(tmp_path / "two")
    both(one, tiny_recipe(base, lora=lora))
    train_model(plan.plan_junior(two, tiny_recipe(base, lora=lora)), ignore)
    workers = start_training(tiny_recipe(base, lora=lora, zero_stage=zero, micro_batch_size=2), two, "senior", 2)
    assert workers.wait() == 0, workers.said()
    made = [load(run) for run in (one, two)]
    assert max((made[0][name] - made[1][name]).abs().max().item() for name in made[0]) < 2e-5


def load(run):
    (file,) = Model(run, "senior").fetch().glob("*.safetensors")
    return load_file(file)
