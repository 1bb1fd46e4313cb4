"""Take over what an earlier run's model replied to the same prompts: it costs nothing, and gives the same rows."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from speed_ray import recipes
from speed_ray.engines.base import Request
from speed_ray.errors import UserError
from speed_ray.executor.former_replies import count_former, same_prompt
from speed_ray.executor.shard_worker import Worker
from speed_ray.records import TOPIC, Row, content_id
from speed_ray.stages import driver_stage
from speed_ray.storage.planned_rows import Inputs
from speed_ray.storage.run import PROPOSED_TASKS, TOPICS, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import RECORDS, REJECTS, REPLIES, Counts
from tests.unit.executor.test_shard_worker import Numbers, Scripted


class Ask(Numbers):
    """Asks about whatever topics there are, two a shard."""

    def plan(self, run: Run) -> Plan:
        topics = sum(file.rows for file in run.artifact(TOPICS).record_files().values())
        identity = {"input": str(topics), "engine": self.recipe.seed}
        return Plan(PROPOSED_TASKS, topics, shard_rows=2, input=TOPICS, variants=("sts",), identity=identity)


def begin(folder: Path, *topics: str) -> Run:
    run = Run(str(folder))
    rows = [{"id": content_id(topic), "topic": topic, "source": topic} for topic in topics]
    plan = Plan(TOPICS, rows=len(rows), shard_rows=2)
    driver_stage.publish_rows(
        run.artifact(TOPICS), plan, TOPIC, iter(driver_stage.RowResult(row["id"], row, None) for row in rows)
    )
    return run


def stage_of(reuse: Run | None = None, seed: int = 0) -> Ask:
    recipe = recipes.load_recipe("miniature", [f"seed={seed}", f"reuse={reuse.uri if reuse else 'null'}"])
    return Ask(recipe)


def work(run: Run, stage: Ask, engine: Scripted) -> Counts:
    """Work off all shards of a run. Returns what they count."""
    artifact, plan = run.artifact(PROPOSED_TASKS), stage.plan(run)
    artifact.ensure_plan(plan)
    worker = Worker(stage, artifact, plan, Inputs(run.artifact(TOPICS), plan), engine, None)
    counts = Counts()
    for shard, generation in artifact.pending(plan):
        counts += asyncio.run(worker.work(shard, generation)) or Counts()
    artifact.publish(plan)
    return counts


def rows(run: Run, role: str) -> list[Row]:
    artifact = run.artifact(PROPOSED_TASKS)
    return [row for commit in artifact.commits() if role in commit.files
            for row in artifact.read(commit.files[role].path).to_pylist()]  # fmt: skip


def answer(number: int, trial: int) -> str:
    return f"bad {number}" if number == 3 or (number == 2 and trial == 0) else f"about {number}"


@pytest.fixture
def former(tmp_path: Path) -> Run:
    """A run that asked about four topics: one of them twice, one in vain."""
    run = begin(tmp_path / "former", "1", "2", "3", "4")
    work(run, stage_of(), Scripted(answer))
    return run


def test_only_what_is_new_is_asked(former: Run, tmp_path: Path) -> None:
    run = begin(tmp_path / "run", "9", "4", "3", "2")
    engine = Scripted(answer)
    counts = work(run, stage_of(former), engine)
    assert dict(engine.asked) == {(9, 0): 1}
    assert (counts.calls, counts.retries, counts.prompt_tokens, counts.output_tokens) == (1, 0, 5, 3)
    assert (counts.accepted, counts.rejected) == (3, 1)


def test_what_is_taken_over_is_what_it_was(former: Run, tmp_path: Path) -> None:
    run = begin(tmp_path / "run", "4", "3", "2", "1")
    work(run, stage_of(former), Scripted(lambda number, trial: "other"))

    def without_seconds(found: list[Row]) -> list[Any]:
        return sorted((sorted((key, str(value)) for key, value in row.items()) for row in found), key=str)

    for role in (RECORDS, REJECTS, REPLIES):
        assert without_seconds(rows(run, role)) == without_seconds(rows(former, role)), role


def test_another_prompt_or_seed_is_asked_anew(former: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = begin(tmp_path / "run", "1", "4")
    engine = Scripted(lambda number, trial: "other")
    request = Ask.request
    monkeypatch.setattr(Ask, "request", lambda self, row: with_content(request(self, row), {"1": "7"}))
    work(run, stage_of(former), engine)
    assert dict(engine.asked) == {(7, 0): 1}


def with_content(request: Any, others: dict[str, str]) -> Any:
    request.messages[0]["content"] = others.get(request.messages[0]["content"], request.messages[0]["content"])
    return request


def test_rows_are_counted_before_anything_is_asked(former: Run, tmp_path: Path) -> None:
    run, stage = begin(tmp_path / "run", "9", "4", "3"), stage_of(former)
    plan = stage.plan(run)
    inputs = Inputs(run.artifact(TOPICS), plan)
    assert count_former(stage, plan, inputs) == 2
    assert count_former(stage_of(), plan, inputs) is None


def test_a_run_that_was_made_in_another_way_is_refused_with_the_difference(former: Run, tmp_path: Path) -> None:
    run, stage = begin(tmp_path / "run", "1"), stage_of(former, seed=5)
    plan = stage.plan(run)
    with pytest.raises(UserError, match=r"reuse: .*/proposed_tasks was made in another way.*\n  engine: was 0, now 5"):
        count_former(stage, plan, Inputs(run.artifact(TOPICS), plan))


def test_a_run_without_that_artifact_has_nothing_to_take_over(tmp_path: Path) -> None:
    run, stage = begin(tmp_path / "run", "1"), stage_of(begin(tmp_path / "other", "1"))
    engine = Scripted(answer)
    assert count_former(stage, stage.plan(run), Inputs(run.artifact(TOPICS), stage.plan(run))) is None
    assert work(run, stage, engine).calls == 1


def test_logprobs_are_taken_over_where_they_were_stored() -> None:
    row = {"messages": [], "seed": 0, "text": "a", "finish_reason": "stop", "output_tokens": 1, "prompt_tokens": 1,
           "seconds": 0.1}  # fmt: skip
    told = [{"token": "a", "logprob": -1.0}]
    request = Request("row", [])
    for stored, taken in (({"logprobs": told}, told), ({}, [])):  # an earlier version had no such column
        reply = same_prompt([{**row, **stored}], request)
        assert reply is not None and reply.samples[0].logprobs == taken
