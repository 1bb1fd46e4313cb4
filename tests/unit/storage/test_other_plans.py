"""Take nothing that another plan made: no commit, no publication; and lose nothing without a word."""

from dataclasses import replace

import pytest

from speed_ray.errors import UserError
from speed_ray.records import REJECT, TOPIC
from speed_ray.stages import driver_stage
from speed_ray.storage.attempt import Attempt
from speed_ray.storage.run import TOPICS, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import RECORDS, REJECTS, REPAIRED, Counts
from speed_ray.storage.verify import verify

OURS = Plan(TOPICS, rows=2, shard_rows=1, identity={"prompts": "ours"})
THEIRS = Plan(TOPICS, rows=2, shard_rows=1, identity={"prompts": "theirs"})


def commit(run: Run, plan: Plan, shard: int, accepted: bool = True) -> None:
    attempt = Attempt(run.artifact(TOPICS), plan, shard, dict(run.artifact(TOPICS).pending(plan))[shard])
    if not accepted:
        attempt.write(REJECTS, [driver_stage.reject(str(shard), "", TOPICS, "bad", "", "").reject], REJECT)
        attempt.commit([str(shard)], Counts(rejected=1))
        return
    attempt.write(RECORDS, [{"id": str(shard), "topic": plan.identity.get("prompts", ""), "source": ""}], TOPIC)
    attempt.commit([str(shard)], Counts(accepted=1, records=1))


@pytest.mark.parametrize("published", [False, True])
def test_without_its_plan_what_another_one_made_is_refused(run, published):
    """`plan.json` was deleted, as is told of a damaged one, and the job is run with another recipe."""
    artifact = run.artifact(TOPICS)
    artifact.ensure_plan(THEIRS)
    for shard in range(2 if published else 1):
        commit(run, THEIRS, shard)
    assert artifact.publish(THEIRS) == published
    run.store.delete(f"{TOPICS}/plan.json")
    with pytest.raises(UserError, match=rf"plan\.json is missing, and {1 + published} shards there"):
        artifact.ensure_plan(OURS)
    assert artifact.plan() is None, "the next job with the right recipe would be refused"
    artifact.ensure_plan(THEIRS)


def test_a_commit_that_another_plan_made_meanwhile_is_withdrawn_and_made_anew(run):
    """Its driver began before plan.json was deleted and written anew."""
    artifact = run.artifact(TOPICS)
    artifact.ensure_plan(OURS)
    commit(run, OURS, 0)
    commit(run, THEIRS, 1)
    assert artifact.commit_of(0) is not None and artifact.commit_of(1) is None
    assert not artifact.publish(OURS)
    assert artifact.pending(OURS) == [(1, 1)]
    commit(run, OURS, 1)
    assert artifact.publish(OURS)
    assert [row["topic"] for row in artifact.records()] == ["ours", "ours"]
    assert all(verdict.holds for verdict in verify(run))


@pytest.mark.parametrize("published", [False, True])
def test_a_plan_of_which_no_row_is_accepted_gives_way(run, published):
    artifact = run.artifact(TOPICS)
    artifact.ensure_plan(OURS)
    commit(run, OURS, 0, accepted=False)
    if published:
        commit(run, OURS, 1, accepted=False)
    assert artifact.publish(OURS) == published
    artifact.ensure_plan(THEIRS)
    assert [shard for shard, _ in artifact.pending(THEIRS)] == [0, 1]
    commit(run, THEIRS, 0)
    with pytest.raises(UserError, match=r"prompts: was 'theirs', now 'ours'"):
        artifact.ensure_plan(OURS)
    commit(run, THEIRS, 1, accepted=False)
    assert artifact.publish(THEIRS)
    assert all(verdict.holds for verdict in verify(run))


@pytest.mark.parametrize("repaired", [False, True])
def test_a_driver_whose_plan_is_no_more_does_not_publish(run, repaired):
    """It slept while its input was repaired and another driver planned anew."""
    now, before = (replace(OURS, identity={"input": {"artifact": "x", "sha256": each}}) for each in ("now", "before"))
    artifact = run.artifact(TOPICS)
    artifact.ensure_plan(now)
    if repaired:
        run.store.create(REPAIRED, b"")
    for shard in range(2):
        commit(run, before, shard)
    with pytest.raises(UserError, match="was planned differently"):
        artifact.publish(before)
    assert artifact.manifest() is None and artifact.plan() == now
