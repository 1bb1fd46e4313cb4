"""A compilation that was killed keeps no later training waiting, and no two processes compile at once."""

import fcntl
from threading import Thread

import pytest

from speed_ray.training.compiled_extensions import load_alone


@pytest.fixture
def root(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("folder", ["collectives", "py311_cpu/collectives"])
def test_the_lock_of_a_killed_compilation_is_gone_before_one_begins(root, folder):
    lock, other = root / folder / "lock", root / "others" / "lock"
    for file in (lock, other):
        file.parent.mkdir(parents=True)
        file.touch()
    seen = []
    load_alone("collectives", lambda: seen.append(lock.exists()))
    assert seen == [False] and other.exists()


def test_one_process_compiles_at_a_time(root):
    order = []
    with (root / "speed_ray.flock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        second = Thread(target=load_alone, args=("collectives", lambda: order.append("loaded")))
        second.start()
        second.join(0.2)
        order.append("released")
    second.join()
    assert order == ["released", "loaded"]
