"""Windows of a stream: written by rank 0, read by all, and given up by rank 0 alone once no shard comes."""

import threading
import time

import pytest

from speed_ray.errors import Interrupted
from speed_ray.storage.attempt import Attempt
from speed_ray.storage.run import EXAMPLES, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import Counts
from speed_ray.storage.trained_models import Model
from speed_ray.training.contrastive import batches

PLAN = Plan(EXAMPLES, rows=8, shard_rows=1, input="tasks", mix={"sts": 1})


@pytest.fixture
def stream(tmp_path, monkeypatch):
    """Return an artifact of eight shards, and a function that collects one rank's windows of `min_rows` rows."""
    run = Run(str(tmp_path / "run"))
    run.artifact(EXAMPLES).ensure_plan(PLAN)
    local = threading.local()
    monkeypatch.setattr(batches.distributed, "rank", lambda: local.rank)
    monkeypatch.setattr(batches, "POLL_SECONDS", 0.01)

    def windows(rank, min_rows, plan=PLAN):
        local.rank = rank
        model, artifact = Model(run, "embedder"), run.artifact(EXAMPLES)
        return [window.shards for window in batches.streamed_windows(model, artifact, plan, min_rows)]

    return run.artifact(EXAMPLES), windows


def commit(artifact, shard):
    attempt = Attempt(artifact, PLAN, shard, 0)
    attempt.row_ids["rejects"].add(str(shard))
    attempt.commit([str(shard)], Counts(rejected=1))


def test_a_rank_waits_for_as_long_as_shards_come_however_slowly(stream, monkeypatch):
    artifact, windows = stream
    monkeypatch.setattr(batches, "STALL_SECONDS", 0.6)
    found = {}
    ranks = [threading.Thread(target=lambda rank=rank: found.update({rank: windows(rank, 8)})) for rank in (0, 1)]
    for rank in ranks:
        rank.start()
    for shard in range(8):  # the only window is whole after 1.6 seconds
        time.sleep(0.2)
        commit(artifact, shard)
    for rank in ranks:
        rank.join(timeout=30)
    assert {shard for shards in found[0] for shard in shards} == set(range(8))
    assert found[1] == found[0]


def test_a_stream_that_stands_still_is_given_up(stream, monkeypatch):
    _, windows = stream
    monkeypatch.setattr(batches, "STALL_SECONDS", 0.05)
    with pytest.raises(Interrupted, match=r"no new shard for (.|\n)*embedder\.stream waits"):
        windows(0, 2)


def test_windows_of_another_plan_are_not_read(stream):
    artifact, windows = stream
    for shard in range(8):
        commit(artifact, shard)
    assert {shard for shards in windows(0, 4) for shard in shards} == set(range(8))
    smaller = Plan(EXAMPLES, rows=2, shard_rows=1, input="tasks", mix={"sts": 1})
    assert {shard for shards in windows(0, 4, smaller) for shard in shards} == {0, 1}


def test_a_damaged_window_is_named(stream):
    artifact, windows = stream
    for shard in range(8):
        commit(artifact, shard)
    windows(0, 4)
    [path] = [name for name in artifact.store.names("models/embedder/windows") if name.endswith("0.json")]
    artifact.store.put(f"models/embedder/windows/{path}", b"{")
    with pytest.raises(Interrupted, match=r"0\.json is damaged"):
        windows(0, 4)
