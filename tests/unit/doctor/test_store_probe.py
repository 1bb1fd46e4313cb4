"""A store is tried with small objects, of which none stays."""

import obstore
import pytest
from obstore.store import MemoryStore

from speed_ray.doctor import store_probe
from speed_ray.errors import UserError
from speed_ray.storage.store import AccessRefused, LocalFolder, ObjectStore


def test_a_folder_that_is_not_there_yet_is_tried_above_and_left_as_it_was(tmp_path):
    found = list(store_probe.check_store(store_probe.open_probed(str(tmp_path / "runs" / "first"))))
    assert [each.level for each in found] == ["ok", "ok"]
    assert not list(tmp_path.iterdir())


def test_a_store_that_overwrites_is_refused(monkeypatch):
    put = obstore.put
    monkeypatch.setattr(obstore, "put", lambda store, path, data, **_: put(store, path, data))
    store = ObjectStore(MemoryStore(), "memory://")
    with pytest.raises(UserError, match="overwrote the first"):
        list(store_probe.check_store(store))
    assert not store.names("")


def test_a_slow_store_and_one_that_may_not_delete_are_warnings(monkeypatch, tmp_path):
    def refuse(self, path):
        raise AccessRefused("no")

    monkeypatch.setattr(store_probe, "SLOW", 0.0)
    monkeypatch.setattr(LocalFolder, "delete", refuse)
    found = list(store_probe.check_store(LocalFolder(tmp_path)))
    assert [each.level for each in found] == ["ok", "warn", "warn"]
    assert "Run where the bucket is" in found[1].advice and "right to delete is missing" in found[2].found
