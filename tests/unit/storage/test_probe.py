"""A store that does not create only if absent is refused before a run begins on it."""

import uuid
from collections.abc import Callable, Iterator

import obstore
import pytest
from obstore.store import MemoryStore

from speed_ray import recipes
from speed_ray.errors import UserError
from speed_ray.storage.probe import PROBE, check_create_is_exclusive
from speed_ray.storage.run import Run
from speed_ray.storage.store import ObjectStore, open_store
from tests.helpers.s3_proxy import Asked, Fate, Proxy, environment


@pytest.fixture
def spoiled(s3: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[Asked], Fate]], ObjectStore]]:
    """Open a store behind a proxy that spoils what is asked."""
    proxies: list[Proxy] = []
    monkeypatch.setattr("speed_ray.storage.store.RETRIES", {"max_retries": 1})
    monkeypatch.setattr("speed_ray.storage.store.CONFLICT_WAITS", (0.0, 0.0))

    def open_behind(spoil: Callable[[Asked], Fate]) -> ObjectStore:
        proxies.append(Proxy(s3, spoil))
        for name, value in environment(proxies[-1].server_port).items():
            monkeypatch.setenv(name, value)
        return open_store(f"s3://bucket/{uuid.uuid4().hex}")

    yield open_behind
    for proxy in proxies:
        proxy.close()


def without_condition(asked: Asked) -> Fate:
    asked.headers.pop("if-none-match", None)
    return None


def always(status: int) -> Callable[[Asked], Fate]:
    return lambda asked: status if asked.verb == "PUT" else None


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (without_condition, "overwrote the first"),
        (always(304), "says that it is there, and that it is not"),
        (always(501), "cannot do that"),
    ],
    ids=["drops the condition", "304 to all", "501"],
)
def test_a_store_that_does_not_honour_the_condition_is_refused(spoiled, spoil, reason):
    with pytest.raises(UserError, match=f"only if it is absent(.|\n)*{reason}"):
        check_create_is_exclusive(spoiled(spoil))


def test_a_304_for_an_object_that_is_there_is_a_refusal_like_any_other(spoiled):
    """MinIO of before 2024 answered so; nothing was overwritten."""
    store = spoiled(lambda asked: 304 if asked.verb == "PUT" and asked.number else None)
    check_create_is_exclusive(store)
    assert not store.create(PROBE, b"another")


def test_a_good_store_is_probed_with_one_object_however_often(spoiled):
    store = spoiled(lambda asked: None)
    for _ in range(3):
        check_create_is_exclusive(store)
    assert store.names("") == [PROBE]


def test_no_run_begins_on_a_store_that_overwrites(monkeypatch):
    run = Run.__new__(Run)
    run.uri, run.store = "memory://", ObjectStore(MemoryStore(), "memory://")
    put = obstore.put
    monkeypatch.setattr(obstore, "put", lambda store, path, data, **_: put(store, path, data))
    with pytest.raises(UserError, match="overwrote the first"):
        run.freeze(recipes.load_recipe("miniature"))
    assert run.store.names("") == [PROBE]
