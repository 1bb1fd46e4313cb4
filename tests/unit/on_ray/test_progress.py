"""The progress line of a stage."""

from dataclasses import replace
from pathlib import Path

import pytest

from speed_ray.on_ray.progress import StageProgress
from speed_ray.recipes.engine_settings import ScriptedEngine
from speed_ray.storage.run import EXAMPLES, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import Counts


@pytest.fixture
def tally(tmp_path: Path) -> StageProgress:
    plan = Plan(stage=EXAMPLES, rows=4, shard_rows=2)
    return StageProgress(Run(str(tmp_path)).artifact(EXAMPLES), plan, ScriptedEngine(engine="scripted"))


def test_a_job_without_a_shard_yet_says_what_it_waits_for(tally):
    assert "engines load" in tally.text()
    tally.add(Counts(accepted=2))
    assert "engines load" not in tally.text()


def test_shards_and_rows_are_counted(tally):
    tally.add(Counts(accepted=1, rejected=1))
    assert tally.text().startswith("1 of 2 shards · 2 of 4 rows · accepted 1 · rejected 1")


def test_the_most_frequent_reasons_of_rejects_come_first(tally):
    tally.counts += replace(Counts(), rejected=3, reasons={"language": 1, "too_short": 2})
    assert "rejected 3 (too_short 2, language 1)" in tally.text()
