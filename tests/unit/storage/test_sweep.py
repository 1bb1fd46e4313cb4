"""A sweep deletes what killed writes left, once it is old, and nothing that somebody may still be writing."""

import os
import time

from obstore.store import MemoryStore

from speed_ray.storage.store import ObjectStore, open_store
from speed_ray.storage.sweep import sweep_unfinished_writes


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
