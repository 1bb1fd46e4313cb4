"""Drain a job's engines: after SIGTERM no shard is begun, and those in progress are committed. Forward their warnings.

A shard that is cut off is only done again, but on a GPU that is a minute's work of 256 prompts; `ray job stop` and a
Kubernetes Pod that goes leave some seconds, and most of what is in flight can be kept in them. Ctrl-C does not wait.

An actor's log stays on its node: an endpoint that answers 429 for an hour would look like an engine that loads.
"""

import logging
from collections import deque
from typing import TypeAlias

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError

from speed_ray.on_ray import capacity


class DrainActor:
    """Counts shards in progress. A dead worker's is never subtracted, so the wait is bounded by the grace period."""

    def __init__(self) -> None:
        self._draining = False
        self._in_progress = 0
        self._warnings = deque[str](maxlen=20)

    def begin_shard(self) -> bool:
        """Return whether one more shard may begin, and count it in."""
        self._in_progress += not self._draining
        return not self._draining

    def end_shard(self) -> None:
        """Count one shard out, however it ended."""
        self._in_progress -= 1

    def drain(self) -> None:
        """Let no other shard begin."""
        self._draining = True

    def shards_in_progress(self) -> int:
        """Return how many shards began and did not end."""
        return self._in_progress

    def warn(self, message: str) -> None:
        """Keep a warning for the driver; of many, the latest 20."""
        self._warnings.append(message)

    def take_warnings(self) -> list[str]:
        """Return the warnings since the last call."""
        warnings = list(self._warnings)
        self._warnings.clear()
        return warnings


DrainGate: TypeAlias = "ActorHandle[DrainActor]"  # as the driver and each engine's actor hold it


def start_gate() -> DrainGate:
    """Start a job's drain actor beside its driver."""
    return ray.remote(DrainActor).options(num_cpus=0, scheduling_strategy=capacity.driver_node()).remote()


def is_drained(gate: DrainGate) -> bool:
    """Return whether no shard is in progress; False where that is not known within a second."""
    try:
        return not ray.get(gate.shards_in_progress.remote(), timeout=1)
    except RayError:
        return False


def take_warnings(gate: DrainGate) -> list[str]:
    """Return what engines warned of since the last call; nothing where the actor does not answer within a second."""
    try:
        return ray.get(gate.take_warnings.remote(), timeout=1)
    except RayError:
        return []


class DriverLogHandler(logging.Handler):
    """Sends an actor's warnings to the driver."""

    def __init__(self, gate: DrainGate) -> None:
        super().__init__(logging.WARNING)
        self._gate = gate

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record's message."""
        self._gate.warn.remote(record.getMessage())
