"""Leases of shards: one live holder each, taken over from the dead."""

import subprocess
import sys

import pytest
from obstore.store import MemoryStore

from speed_ray.errors import Interrupted
from speed_ray.storage.holder import Holder, HolderWatch
from speed_ray.storage.run import Run
from speed_ray.storage.shard_leases import ShardLeases
from speed_ray.storage.shards import Artifact
from speed_ray.storage.store import LocalFolder, ObjectStore
from tests.helpers.crashing_drivers import Troubled, interleave

HOLDS_AND_IS_KILLED = """
import os, signal, sys
from speed_ray.storage.holder import Holder
from speed_ray.storage.run import Run
from speed_ray.storage.shard_leases import ShardLeases
run = Run(sys.argv[1])
assert ShardLeases(run.artifact("tasks"), Holder(run.store)).take(3, 0)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def two(tmp_path):
    run = Run(str(tmp_path / "run"))
    holders = [Holder(run.store), Holder(run.store)]
    yield [ShardLeases(run.artifact("tasks"), holder) for holder in holders]
    for holder in holders:
        holder.close()


def test_a_shard_has_one_live_holder(two):
    first, second = two
    assert first.take(3, 0)
    assert not second.take(3, 0) and not first.take(3, 0)
    assert second.take(4, 0) and second.take(3, 1)


def test_a_shard_that_is_given_back_is_free_at_once(two):
    first, second = two
    assert first.take(3, 0)
    first.give_back(3, 0)
    assert second.take(3, 0)
    assert not first.take(3, 0)


def test_a_killed_process_of_this_machine_is_dead_at_once(two, tmp_path):
    subprocess.run([sys.executable, "-c", HOLDS_AND_IS_KILLED, str(tmp_path / "run")])
    first, second = two
    assert first.take(3, 0)
    assert not second.take(3, 0)


def test_a_holder_elsewhere_is_dead_when_its_heartbeat_stops(tmp_path, monkeypatch):
    store = LocalFolder(tmp_path)
    elsewhere = Holder(store)
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    def beat() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(
                "speed_ray.storage.holder._this_process", lambda: {"space": "elsewhere", "pid": 1, "started": 0.0}
            )
            elsewhere._beat()

    beat()
    watch = HolderWatch(store)
    assert watch.is_alive(elsewhere.id)
    now[0] += 50
    beat()
    assert watch.is_alive(elsewhere.id)
    now[0] += 50
    assert watch.is_alive(elsewhere.id)
    now[0] += 11
    assert not watch.is_alive(elsewhere.id)
    assert not watch.is_alive("nobody")
    elsewhere._closed.set()


def test_a_holder_that_cannot_write_makes_no_calls_before_others_take_it_for_dead(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    holder = Holder(LocalFolder(tmp_path))
    holder._closed.set()
    assert not holder.is_fenced()
    now[0] += 31
    assert holder.is_fenced()
    holder._beat()
    assert not holder.is_fenced()
    now[0] += 61
    holder._beat()
    with pytest.raises(Interrupted, match="could not be written to for 61 seconds"):
        holder.is_fenced()


@pytest.mark.parametrize("choices", [[0, 1], [0, 0, 1], [1, 0, 0, 0, 1], [0, 1, 1, 1]])
def test_of_two_that_take_a_shard_at_once_one_has_it(choices, monkeypatch):
    monkeypatch.setattr(Holder, "_beat_until_closed", lambda self: None)
    backend, taken = MemoryStore(), []
    holders = [Holder(ObjectStore(backend, "memory://")) for _ in range(2)]

    def job(number):
        def run(turn):
            taken.append(ShardLeases(Artifact(Troubled(backend, {}, turn), "tasks"), holders[number]).take(0, 0))

        return run

    interleave([job(0), job(1)], choices)
    assert sorted(taken) == [False, True]
