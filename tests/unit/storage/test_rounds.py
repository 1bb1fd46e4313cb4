"""A second round finds and judges pairs by the embedder of the first, in a folder of its own, and goes on when cut."""

from pathlib import Path

import pytest

from speed_ray import pipeline
from speed_ray.console import status
from speed_ray.errors import UserError
from speed_ray.evaluation import eval_models
from speed_ray.storage import rounds
from speed_ray.storage.run import CURATED_EXAMPLES, EXAMPLES, PASSAGES, SCORED_EXAMPLES, Run
from speed_ray.storage.trained_models import Model
from speed_ray.storage.verify import verify
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
    assert all(verdict.holds for verdict in verify(later[0]))
    assert rounds.last_embedder(runs[0]).where == f"{later[0].uri}/models/embedder"
    assert "later_rounds/2: embedder: trained" in "\n".join(status.status_lines(runs[0]))
    assert [each.name for each in eval_models.models_of(runs[0], recipe)] == [
        "base", "embedder", "embedder_round_2", "bm25",
    ]  # fmt: skip
