"""`verify` believes nothing but storage: every way to break the promise is found, and named with its file."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from speed_ray.errors import UserError
from speed_ray.records import REJECT, TASK, TOPIC, Row, content_id
from speed_ray.stages import driver_stage
from speed_ray.storage.attempt import Attempt
from speed_ray.storage.planned_rows import Inputs
from speed_ray.storage.repair import repair_run
from speed_ray.storage.run import PROPOSED_TASKS, TOPICS, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import RECORDS, REJECTS, Commit, Counts
from speed_ray.storage.verify import VerifyResult, verify

TOPIC_ROWS = [{"id": content_id(name), "topic": name, "source": name} for name in "abcdefg"]
PLAN = Plan(PROPOSED_TASKS, rows=14, shard_rows=4, input=TOPICS, variants=("retrieval", "sts"))


def task(row_id: str, parent: str, index: int = 0) -> Row:
    return {"id": f"{row_id}-{index}", "row_id": row_id, "parent_id": parent, "kind": "sts", "topic": "t", "task": "t",
            "model": "m"}  # fmt: skip


@pytest.fixture
def begun(run: Run) -> Run:
    """A run with topics published and nothing made of them yet."""
    rows = (driver_stage.RowResult(row["id"], row, None) for row in TOPIC_ROWS)
    driver_stage.publish_rows(run.artifact(TOPICS), Plan(TOPICS, rows=7, shard_rows=3), TOPIC, rows)
    run.artifact(PROPOSED_TASKS).ensure_plan(PLAN)
    return run


def commit(run: Run, shard: int, records: list[Row], rejects: list[Row], plan: Plan = PLAN) -> None:
    """Commit whatever rows, as a wrong executor would."""
    attempt = Attempt(run.artifact(PROPOSED_TASKS), plan, shard, 0)
    attempt.write(RECORDS, records, TASK)
    attempt.write(REJECTS, rejects, REJECT)
    attempt.row_ids = {RECORDS: set(), REJECTS: set()}  # past the check that an attempt makes itself
    attempt.commit([], Counts())


Spoil = Callable[[list[Row], list[Row]], tuple[list[Row], list[Row]]]


def finish(run: Run, spoil: Spoil = lambda records, rejects: (records, rejects)) -> VerifyResult:
    """Commit every shard, each third row a reject and the others two records, and publish. Returns the verdict.

    `spoil` changes what shard 0 commits.
    """
    inputs = Inputs(run.artifact(TOPICS), PLAN)
    for shard in range(PLAN.shards):
        records, rejects = [], []
        for number, row in enumerate(inputs.of_shard(shard)):
            if number % 3 == 2:
                rejects.append(driver_stage.reject(row.row_id, row.parent["id"], "s", "bad", "", "").reject)
            else:
                records += [task(row.row_id, row.parent["id"], index) for index in range(2)]
        commit(run, shard, *(spoil(records, rejects) if shard == 0 else (records, rejects)))
    run.artifact(PROPOSED_TASKS).publish(PLAN)
    return verify(run)[1]


def test_a_whole_run_holds_and_counts_add_up(begun):
    verdict = finish(begun)
    assert verdict.holds and not verdict.problems
    assert str(verdict) == "planned 14 = accepted 11 + rejected 3 · duplicates 0 · missing 0"


@pytest.mark.parametrize(
    ("spoil", "missing", "duplicates"),
    [
        (lambda records, rejects: (records[2:], rejects), 1, 0),
        (lambda records, rejects: (records, []), 1, 0),
        (lambda records, rejects: (records, rejects * 2), 0, 1),
        (lambda records, rejects: (records + records[:1], rejects), 0, 1),
        (lambda records, rejects: ([*records, task("alien", "x")], rejects), 0, 1),
        (lambda records, rejects: (records, [{**rejects[0], "row_id": "alien"}]), 1, 1),
        (lambda records, rejects: (records, [*rejects, {**rejects[0], "row_id": records[0]["row_id"]}]), 0, 1),
    ],
    ids=["no record", "no reject", "reject twice", "record twice", "one too many", "another's row", "both"],
)
def test_lost_and_doubled_rows_are_counted(begun, spoil, missing, duplicates):
    verdict = finish(begun, spoil)
    assert (verdict.missing, verdict.duplicates) == (missing, duplicates)
    assert not verdict.holds


def test_an_unfinished_artifact_says_what_to_do(begun):
    verdict = verify(begun)[1]
    assert (verdict.missing, verdict.published, verdict.holds) == (14, False, False)
    assert verdict.problems == ["memory:///proposed_tasks is not published yet: run its job again to finish it"]


def test_a_commit_of_another_plan_is_reported(begun):
    finish(begun)
    artifact = begun.artifact(PROPOSED_TASKS)
    entry = Commit.from_json(artifact.get("commits/00000002.0.json"))
    artifact.put("commits/00000002.0.json", replace(entry, plan="other").to_json())
    verdict = verify(begun)[1]
    assert "the commit of shard 2 belongs to another plan" in verdict.problems[0]
    assert verdict.missing == 4


def test_a_commit_beyond_the_plan_is_reported_and_not_published(begun):
    artifact = begun.artifact(PROPOSED_TASKS)
    commit(begun, 77, [task("x", "y")], [])
    verdict = finish(begun)
    assert "the commit of shard 77 belongs to another plan" in verdict.problems[0]
    assert [shard["shard"] for shard in json.loads(artifact.get("_MANIFEST.json"))["shards"]] == [0, 1, 2, 3]
    assert (verdict.missing, verdict.duplicates) == (0, 0)


def test_every_damaged_file_is_named_once_and_costs_its_shard(begun):
    finish(begun)
    artifact = begun.artifact(PROPOSED_TASKS)
    files = [entry.path for entry in list(artifact.commits())[1].files.values()]
    for path in files:
        artifact.put(path, b"")
    verdict = verify(begun)[1]
    assert [problem.split(": ")[0] for problem in verdict.problems] == [f"{artifact.where}/{path}" for path in files]
    assert [damaged.shard for damaged in verdict.damaged] == [1]
    assert repair_run(begun, [verdict]) == 1
    assert artifact.pending(PLAN) == [(1, 1)] and artifact.manifest() is None


def test_repair_leaves_a_whole_run_alone(begun):
    finish(begun)
    before = {path: begun.store.get(path) for path in begun.store.names("")}
    assert repair_run(begun, verify(begun)) == 1 - 1
    assert {path: begun.store.get(path) for path in begun.store.names("")} == before


def test_a_folder_that_is_no_run_is_refused(run):
    with pytest.raises(UserError, match="holds nothing to verify"):
        verify(run)


def test_commits_without_their_plan_prove_nothing(begun: Run) -> None:
    finish(begun)
    begun.store.delete(f"{PROPOSED_TASKS}/plan.json")
    [topics, tasks] = verify(begun)
    assert topics.holds and not tasks.holds
    assert "plan.json is missing" in tasks.problems[0]
    begun.artifact(PROPOSED_TASKS).ensure_plan(PLAN)
    assert all(verdict.holds for verdict in verify(begun))
