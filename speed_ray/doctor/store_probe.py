"""Find whether the store of a run keeps what its protocol rests on, and how fast it answers."""

import statistics
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

from speed_ray.doctor.finding import Finding
from speed_ray.doctor.machine import existing
from speed_ray.storage.probe import check_create_is_exclusive
from speed_ray.storage.store import AccessRefused, LocalFolder, Store, open_store

RETRIES: Any = {"max_retries": 2, "retry_timeout": timedelta(seconds=20)}  # a run waits for minutes, who asks does not
ROUNDS = 5
SLOW = 0.5  # seconds: a bucket in the same region takes some 30 ms


def open_probed(uri: str) -> Store:
    """Open a run's store; of a folder that is not there yet, the nearest one above: nothing is left behind."""
    store = open_store(uri, RETRIES)
    return LocalFolder(existing(store.root)) if isinstance(store, LocalFolder) else store


def check_store(store: Store) -> Iterator[Finding]:
    """Create, read, list and delete small objects. Raises UserError for a store that cannot hold a run."""
    name = f"_PROBE-{uuid.uuid4().hex}"
    try:
        check_create_is_exclusive(store, name)
        yield Finding("store", "ok", f"{store.uri} creates an object only if it is absent")
        took = {
            "create": _median(lambda number: store.create(f"{name}.{number}", uuid.uuid4().bytes)),
            "read": _median(lambda number: store.get(name)),
            "list": _median(lambda number: store.names(name)),
        }
    finally:
        kept = _delete(store, [name, *(f"{name}.{number}" for number in range(ROUNDS))])
    found = ", ".join(f"{verb} {seconds * 1000:,.1f} ms" for verb, seconds in took.items())
    if max(took.values()) > SLOW:
        yield Finding("store", "warn", found, "Run where the bucket is: a shard takes some ten requests.")
    else:
        yield Finding("store", "ok", found)
    if kept:
        advice = "Runs work without it, but for `sweep`, and keep small files that nobody needs."
        yield Finding("store", "warn", f"the right to delete is missing: {', '.join(kept)} stayed", advice)


def _median(ask: Callable[[int], object]) -> float:
    """Return the seconds that a request takes."""
    took = []
    for number in range(ROUNDS):
        began = time.perf_counter()
        ask(number)
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def _delete(store: Store, names: list[str]) -> list[str]:
    """Remove what was written; return what may not be."""
    kept = []
    for name in names:
        try:
            store.delete(name)
        except AccessRefused:
            kept.append(name)
    return kept
