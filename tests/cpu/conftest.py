"""What the tests of this folder share: hypothesis draws the same examples everywhere, and a run can live in memory."""

import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from obstore.store import MemoryStore

from speed_ray.run import Run
from speed_ray.store import ObjectStore

settings.register_profile(
    "ci", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
# Looks for what the fixed examples miss: HYPOTHESIS_PROFILE=search .venv/bin/pytest tests/cpu/test_shards.py
settings.register_profile("search", max_examples=2_000, deadline=None, suppress_health_check=list(HealthCheck))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


class StoredRun(Run):
    """A run on a store that a test made."""

    def __init__(self, store: Any) -> None:
        self.uri = store.uri
        self.store = store


@pytest.fixture(scope="session")
def run_on() -> Callable[[Any], Run]:
    """Make a run on any store."""
    return StoredRun


@pytest.fixture
def run() -> Run:
    """An empty run in memory."""
    return StoredRun(ObjectStore(MemoryStore(), "memory://"))
