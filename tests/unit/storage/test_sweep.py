"""A sweep deletes what does not count and what killed writes left, and nothing that may still be written or read."""

import os
import time

from obstore.store import MemoryStore

from speed_ray.records import REJECT, TOPIC
from speed_ray.storage.attempt import Attempt
from speed_ray.storage.run import PROPOSED_TASKS, TOPICS
from speed_ray.storage.shards import RECORDS, REJECTS, Counts
from speed_ray.storage.store import ObjectStore, open_store
from speed_ray.storage.sweep import sweep_artifact, sweep_unfinished_writes
from tests.helpers.small_worlds import SMALL, check, drive, plans_of, topics_of


def test_old_unfinished_writes_are_deleted(tmp_path):
    store = open_store(str(tmp_path))
    store.put("examples/attempts/0/a", b"x")
    folder = tmp_path / "examples/attempts/0"
    names = [f".a-{'0' * 32}", f".b-{'1' * 32}", ".DS_Store"]
    for name in names:
        (folder / name).write_bytes(b"half")
    hours_ago = time.time() - 7200
    for name in (names[0], names[2]):
        os.utime(folder / name, (hours_ago, hours_ago))
    assert sweep_unfinished_writes(store) == 1
    assert sorted(path.name for path in folder.iterdir()) == sorted(["a", names[1], names[2]])


def test_what_a_killed_write_leaves_is_known_by_its_name(tmp_path, monkeypatch):
    """The name is the store's own: were it to change, nothing would be swept."""
    store = open_store(str(tmp_path))
    monkeypatch.setattr(os, "link", lambda *_: os._exit(0))
    if (child := os.fork()) == 0:
        store.create("plan.json", b"x")
    os.waitpid(child, 0)
    assert len(list(tmp_path.iterdir())) == 1
    assert sweep_unfinished_writes(store, grace=0.0) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_bucket_has_none():
    assert sweep_unfinished_writes(ObjectStore(MemoryStore(), "memory://"), grace=0.0) == 0


def test_a_sweep_deletes_orphans_only_and_only_after_the_grace(finished):
    artifact = finished.artifact(PROPOSED_TASKS)
    named, leases = artifact.names("attempts"), artifact.names("leases")
    artifact.put("attempts/00000000/orphan-records.parquet", b"x")
    assert sweep_artifact(artifact) == 0
    assert sweep_artifact(artifact, grace=0.0) == 1 + len(leases) > 1
    assert artifact.names("attempts") == named and artifact.names("leases") == []
    check(finished, SMALL)
    artifact.unpublish()
    artifact.put("attempts/00000000/orphan-records.parquet", b"x")
    assert sweep_artifact(artifact, grace=0.0) == 0


def test_a_sweep_keeps_all_attempts_that_lost_until_publication_is_sure(run):
    """Another driver's attempt that lost its race is an orphan, the winner's never."""
    topics, _ = plans_of(SMALL)
    artifact = run.artifact(TOPICS)
    artifact.ensure_plan(topics)
    rows = list(topics_of(SMALL))
    won = []
    for _ in range(2):
        attempt = Attempt(artifact, topics, 0, 0)
        attempt.write(RECORDS, [row.record for row in rows[:3] if row.record], TOPIC)
        attempt.write(REJECTS, [row.reject for row in rows[:3] if row.reject], REJECT)
        won.append(attempt.commit([row.row_id for row in rows[:3]], Counts(accepted=2, rejected=1, records=2)))
    assert won == [True, False]
    drive(run, SMALL)
    assert sweep_artifact(artifact, grace=0.0) == 2
    check(run, SMALL)
