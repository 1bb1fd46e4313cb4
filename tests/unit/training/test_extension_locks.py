"""A compilation that was killed keeps no later training waiting; one that is at work is left alone."""

import subprocess
import sys

import pytest

from speed_ray.training import extension_locks

OTHER = """
from speed_ray.training.extension_locks import release_stale_locks
release_stale_locks()
print("compiling", flush=True)
input()
"""


@pytest.fixture
def lock(tmp_path, monkeypatch):
    """A lock of an extension, as a killed compilation leaves it."""
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setattr(extension_locks, "_held", [])
    lock = tmp_path / "py311_cpu" / "deepspeed_shm_comm" / "lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    return lock


def test_a_lock_that_nobody_holds_is_removed(lock):
    extension_locks.release_stale_locks()
    assert not lock.exists()


def test_the_lock_of_a_training_that_may_compile_stays_until_it_is_gone(lock):
    other = subprocess.Popen([sys.executable, "-c", OTHER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout.readline() == b"compiling\n"
    lock.touch()
    extension_locks.release_stale_locks()
    assert lock.exists()
    other.kill()
    other.communicate()
    extension_locks.release_stale_locks()
    assert not lock.exists()
