"""A driver that is killed at any moment is followed by the same command, which goes on where it was."""

import sys

import pytest

from speed_ray.on_ray import pool

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SHARDS = 46
AT_ONCE = 5  # shards that the engine holds: twice its 16 requests in flight over 10 rows a shard, and one more

DIES_BEFORE = """
import os, signal, sys
from speed_ray.cli import main
from speed_ray.storage.shards import Artifact
create, last = Artifact.create, sys.argv.pop(1)
def dying(self, path, data):
    if path == last:
        os.kill(os.getpid(), signal.SIGKILL)
    return create(self, path, data)
Artifact.create = dying
main()
"""


def test_killed_again_and_again(make_job, drive, prove, nothing_left, monkeypatch):
    job = make_job(slow=True).begin()
    share = {5: 3, 50: 23, 95: 44}

    for wanted in share.values():
        driver = drive(job)
        driver.wait_until(lambda wanted=wanted: job.commits() >= wanted)
        driver.kill()
        nothing_left(driver)
        assert not (job.examples / "_MANIFEST.json").exists(), "the driver was killed too late to prove anything"
    assert job.attempts() <= SHARDS + len(share) * AT_ONCE, "more was done twice than was in flight"

    for last in ("_MANIFEST.json", "_SUCCESS"):
        driver = drive(job, program=[sys.executable, "-c", DIES_BEFORE, last])
        assert driver.ended() == -9, driver.said()
        nothing_left(driver)
        assert job.commits() == SHARDS
        assert not (job.examples / last).exists()

    done = job.attempts()
    monkeypatch.setattr(pool, "session", no_ray)
    job.synthesize()
    prove(job)
    job.synthesize()
    assert job.attempts() == done, "a finished job asked its engine again"


def no_ray() -> None:
    raise AssertionError("all shards are committed, and yet Ray was started")
