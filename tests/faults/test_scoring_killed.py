"""A scoring that is killed goes on with the shards that are not judged, and ends in the same rows."""

import pytest

from speed_ray.records import CURATED, content_id
from speed_ray.stages.driver_stage import RowResult, publish_rows
from speed_ray.storage.run import CURATED_EXAMPLES, PAIR_SCORES, SCORED_EXAMPLES
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.verify import verify
from tests.helpers.grounded_run import MINILM

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ROWS, SHARD_ROWS = 400, 4
TOOLS, PLACES = ("saw", "hammer", "chisel", "plane", "rasp"), ("shed", "barn", "cellar", "attic", "van")


def curated(number):
    """A question about a tool, its answer, and the answer for another place."""
    tool, place, other = TOOLS[number % 5], PLACES[number // 5 % 5], PLACES[(number // 5 + 1) % 5]
    texts = {"query": f"where is the {tool} number {number}", "instruction": ""}
    texts |= {"positive": f"The {tool} number {number} hangs in the {place}, oiled and wrapped."}
    row_id = content_id("example", str(number))
    fixed = {"kind": "retrieval", "topic": "tools", "language": "English", "model": "m"}
    return {
        "id": row_id, "row_id": row_id, "parent_id": "task", **fixed, **texts,
        "negatives": [f"A kettle stands in the {other}."], "split": "train" if number % 8 else "held_out",
    }  # fmt: skip


def made(job):
    rows = [curated(number) for number in range(ROWS)]
    passed = (RowResult(row["id"], row, None) for row in rows)
    publish_rows(job.run.artifact(CURATED_EXAMPLES), Plan(CURATED_EXAMPLES, ROWS, 64), CURATED, passed)
    return job


def test_what_is_judged_stays_and_the_rows_are_those_of_an_unbroken_run(make_job, drive, nothing_left):
    settings = {"curate__reference": MINILM, "score": {"shard_rows": SHARD_ROWS}}
    stopped, unbroken = made(make_job("stopped", **settings)), made(make_job("unbroken", **settings))
    artifact = stopped.run.artifact(PAIR_SCORES)

    driver = drive(stopped, "score")
    driver.wait_until(lambda: len(list(artifact.commits())) >= 3)
    driver.kill()
    nothing_left(driver)
    assert artifact.manifest() is None, "the driver was killed too late to prove anything"
    before = {commit.shard: commit.attempt for commit in artifact.commits()}

    again, whole = drive(stopped, "score"), drive(unbroken, "score")
    assert again.ended() == 0, again.said()
    assert whole.ended() == 0, whole.said()
    after = {commit.shard: commit.attempt for commit in artifact.commits()}
    assert len(after) == ROWS // SHARD_ROWS and {shard: after[shard] for shard in before} == before
    for name in (PAIR_SCORES, SCORED_EXAMPLES):
        assert stopped.run.artifact(name).records_digest() == unbroken.run.artifact(name).records_digest(), name
    assert all(verdict.holds for verdict in verify(stopped.run))
