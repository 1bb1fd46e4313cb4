"""An evaluation that is killed goes on with the tasks that are not done."""

from pathlib import Path

import pytest

from speed_ray.storage.trained_models import Model
from speed_ray.training.contrastive import encoder
from tests.helpers.tiny_training import tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
TASKS = 6


@pytest.fixture
def job(make_job, tmp_path):
    """A run with a trained embedder, to be scored on tables of one line more each."""
    tiny_model(tmp_path / "base")
    encoder.load_encoder(tmp_path / "base", "mean", max_length=64).save(str(tmp_path / "trained"))
    tables = [tmp_path / f"table-{number}.csv" for number in range(TASKS)]
    for number, table in enumerate(tables, start=2):
        table.write_text("".join(f"lamp {line},light {line},{line}\n" for line in range(number)))
    made = make_job(
        embedder={"model": str(tmp_path / "base"), "pooling": "mean", "max_length": 64},
        evaluate={"sts": [str(table) for table in tables]},
    )
    Model(made.run, "embedder").publish(tmp_path / "trained", {"rows": {"instructed": True}})
    return made


def kept(job):
    return {path: path.stat().st_mtime_ns for path in Path(job.uri, "evaluation").glob("*/*.json")}


def test_what_is_scored_stays_when_the_driver_is_killed(job, drive, nothing_left):
    driver = drive(job, "evaluate")
    driver.wait_until(lambda: kept(job))
    driver.kill()
    nothing_left(driver)
    before = kept(job)
    assert 0 < len(before) < 2 * TASKS, "the driver was killed too late to prove anything"

    again = drive(job, "evaluate")
    assert again.ended() == 0, again.said()
    after = kept(job)
    assert len(after) == 2 * TASKS and {path: after[path] for path in before} == before
    assert f"of {2 * TASKS - len(before)} done ·" in again.said()
    assert "Spearman" in again.said()
