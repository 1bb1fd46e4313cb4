"""Where actors ask before they begin a shard, and leave word of trouble.

A job that is to end has the shards at work committed, and begins no other.

A shard that is cut off is only done again, but on a GPU that is a minute's work of 256 prompts; `ray job stop` and a
Kubernetes Pod that goes leave some seconds, and most of what is in flight can be kept in them. Ctrl-C does not wait.

What an actor logs stays on its node. An endpoint that answers 429 for an hour would look like an engine that loads.
"""

import logging
from collections import deque

import ray
from ray import ObjectRef
from ray.actor import ActorHandle
from ray.exceptions import RayError

from speed_ray.on_ray import capacity


class _DrainActor:
    """Knows who is inside. One that dies inside is never counted out: its driver waits no longer than it may."""

    def __init__(self) -> None:
        self._open = True
        self._inside = 0
        self._told = deque[str](maxlen=20)

    def enter(self) -> bool:
        self._inside += self._open
        return self._open

    def leave(self) -> None:
        self._inside -= 1

    def close(self) -> None:
        self._open = False

    def inside(self) -> int:
        return self._inside

    def tell(self, words: str) -> None:
        self._told.append(words)

    def heard(self) -> list[str]:
        told = list(self._told)
        self._told.clear()
        return told


class DrainGate:
    """One job's gate, in the driver and, as a copy, in every actor."""

    def __init__(self) -> None:
        self._doorman: ActorHandle[_DrainActor] = ray.remote(num_cpus=0, scheduling_strategy=capacity.driver_node())(
            _DrainActor
        ).remote()
        self._asked: ObjectRef[list[str]] | None = None

    async def enter(self) -> bool:
        """Whether one more shard may begin."""
        return bool(await self._doorman.enter.remote())

    def leave(self) -> None:
        """One shard less, however it went."""
        self._doorman.leave.remote()

    def close(self) -> None:
        """Let no other in."""
        self._doorman.close.remote()

    def is_empty(self) -> bool:
        """Whether nobody is inside, as far as one can tell within a second."""
        try:
            return not ray.get(self._doorman.inside.remote(), timeout=1)
        except RayError:
            return False

    def tell(self, words: str) -> None:
        """Leave word for whoever watches the job."""
        self._doorman.tell.remote(words)

    def heard(self) -> list[str]:
        """The latest words that were left since they were last asked for. Never waits: they come a call later."""
        try:
            if self._asked and not ray.wait([self._asked], timeout=0)[0]:
                return []
            told = ray.get(self._asked) if self._asked else []
            self._asked = self._doorman.heard.remote()
            return told
        except RayError:
            return []


class DriverLogHandler(logging.Handler):
    """Leaves an actor's warnings at its gate."""

    def __init__(self, gate: DrainGate) -> None:
        super().__init__(logging.WARNING)
        self._gate = gate

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a warning on, in the words of the log."""
        self._gate.tell(record.getMessage())
