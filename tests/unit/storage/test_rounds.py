"""A second round finds and judges pairs by the embedder of the first, in a folder of its own, and goes on when cut."""

from pathlib import Path

import pytest

from speed_ray import pipeline
from speed_ray.console import status
from speed_ray.errors import UserError
from speed_ray.evaluation import eval_models
from speed_ray.records import EXAMPLE
from speed_ray.stages import driver_stage
from speed_ray.storage import rounds
from speed_ray.storage.run import CURATED_EXAMPLES, EXAMPLES, PASSAGES, SCORED_EXAMPLES, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import RECORDS
from speed_ray.storage.trained_models import Model
from speed_ray.storage.verify import verify_rounds
from speed_ray.training.train_model import train_model
from tests.helpers.grounded_run import MINILM, example, grounded, publish
from tests.helpers.tiny_training import ignore
from tests.unit.stages.test_scored_examples import PARAPHRASES, PASSAGE_ROWS, PLANTED

EMBEDDER = (
    f"embedder={{model: {MINILM}, global_batch_size: 8, micro_batch_size: 8, max_length: 32, precision: fp32,"
    " lora: null, learning_rate: 1.0e-4, temperature: 0.05}"
)
MINED = "curate.mine_negatives={count: 1, skip_nearest: 0, max_of_positive: null, max_near_positive: null}"
SETTINGS = (f"curate.reference={MINILM}", MINED, "generator={engine: scripted}", EMBEDDER, "score={}")


def test_the_first_round_is_the_run_itself(tmp_path: Path) -> None:
    run, recipe = Run(str(tmp_path)), grounded(*SETTINGS, "rounds=2")
    assert rounds.of_round(run, recipe, 1) == (run, recipe)
    later, changed = rounds.of_round(run, recipe, 2)
    assert changed.curate.reference == f"{tmp_path}/models/embedder" and changed.rounds == 1
    assert later.artifact(CURATED_EXAMPLES).where == f"{tmp_path}/later_rounds/2/{CURATED_EXAMPLES}"
    assert [later.artifact(name).where for name in (EXAMPLES, PASSAGES)] == [
        f"{tmp_path}/{name}" for name in (EXAMPLES, PASSAGES)
    ]


@pytest.mark.parametrize(
    ("override", "said"), [("curate={reference: null}", "curate.reference: name one"), ("embedder=null", "model")]
)
def test_rounds_that_find_nothing_else_are_refused(override: str, said: str) -> None:
    with pytest.raises(UserError, match=f"rounds: .*{said}"):
        grounded(f"curate.reference={MINILM}", MINED, EMBEDDER, override, "score=null", "rounds=2")


def trained_round(run: Run, number: int, base: float | None, tuned: float) -> Model:
    """Publish an embedder of a round, whose held-out queries gave these scores."""
    folder = run if number == 1 else Run(f"{run.uri}/later_rounds/{number}")
    folder.store.put("recipe.yaml", b"")
    weights = Path(run.uri) / f"weights-{number}"
    weights.mkdir()
    (weights / "model.safetensors").write_text("weights")
    shares = [{"share": 0.0, "ndcg_at_10": base}, {"share": 1.0, "ndcg_at_10": tuned}]
    model = Model(folder, rounds.EMBEDDER)
    model.publish(weights, {"merge": {"share": 1.0, "shares": shares}} if base is not None else {})
    return model


def test_the_round_that_gained_most_is_the_one_used(tmp_path: Path) -> None:
    run = Run(str(tmp_path))
    assert rounds.best_embedder(run).where == f"{tmp_path}/models/embedder", "none is trained yet"
    trained_round(run, 1, 0.5, 0.55)
    second = trained_round(run, 2, 0.4, 0.5)
    trained_round(run, 3, 0.7, 0.7)
    assert rounds.best_embedder(run).where == second.where


def test_of_rounds_without_a_measured_gain_the_last_is_used(tmp_path: Path) -> None:
    run = Run(str(tmp_path))
    trained_round(run, 1, 0.5, 0.55)
    last = trained_round(run, 2, None, 0.0)
    assert rounds.best_embedder(run).where == last.where


def test_a_damaged_file_of_a_later_round_is_found(tmp_path: Path, said) -> None:
    run, rows = Run(str(tmp_path)), PASSAGE_ROWS[:2]
    examples = [example(each["question"], about) for each, about in zip(PLANTED, rows, strict=False)]
    publish(run, rows, examples)
    later = Run(f"{run.uri}/later_rounds/2")
    later.store.put("recipe.yaml", b"")
    artifact = later.artifact(CURATED_EXAMPLES)
    results = (driver_stage.RowResult(row["id"], row, None) for row in examples)
    driver_stage.publish_rows(artifact, Plan(artifact.name, len(examples), 7), EXAMPLE, results)
    artifact.put(next(artifact.commits()).files[RECORDS].path, b"torn")

    code, words = said("verify", run.uri)
    assert code == 1 and "later_rounds/2/curated_examples: planned" in words and "--repair" in words
    code, words = said("verify", run.uri, "--repair")
    assert "1 damaged shards withdrawn" in words and not list(artifact.commits())


@pytest.mark.slow
def test_a_round_that_was_cut_short_goes_on_and_ends_as_an_unbroken_one(tmp_path: Path, monkeypatch) -> None:
    class Cut(Exception):
        pass

    def cut(run: Run, recipe: object) -> None:
        raise Cut

    def trained(training: object, train: object) -> None:
        asked.append(training.model.where)
        train_model(training, ignore)

    asked: list[str] = []
    monkeypatch.setattr(pipeline, "train_on_ray", trained)
    recipe, runs = grounded(*SETTINGS, "rounds=2"), [Run(str(tmp_path / name)) for name in ("cut", "whole")]
    for run in runs:
        pairs = zip(PLANTED, PASSAGE_ROWS, strict=True)
        publish(run, PASSAGE_ROWS + PARAPHRASES, [example(each["question"], about) for each, about in pairs])
        pipeline.curate(run, recipe)
        pipeline.score(run, recipe)
    with monkeypatch.context() as patched, pytest.raises(Cut):
        patched.setattr(pipeline, "score", cut)
        pipeline.train_embedder(runs[0], recipe)
    for run in runs:
        pipeline.train_embedder(run, recipe)

    later = [rounds.of_round(run, recipe, 2)[0] for run in runs]
    for name in (CURATED_EXAMPLES, SCORED_EXAMPLES):
        assert later[0].artifact(name).records_digest() == later[1].artifact(name).records_digest(), name
    digests = {Model(run, "embedder").published()["digest"] for run in later}
    assert len(digests) == 1 and digests != {Model(runs[0], "embedder").published()["digest"]}
    assert all(verdict.holds for _, verdicts in verify_rounds(runs[0]) for verdict in verdicts)
    assert "later_rounds/2: embedder: trained" in "\n".join(status.status_lines(runs[0]))
    assert [each.name for each in eval_models.models_of(runs[0], recipe)] == [
        "base", "embedder", "embedder_round_2", "bm25",
    ]  # fmt: skip
