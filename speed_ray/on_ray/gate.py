"""Where actors ask before they begin a shard: a job that is to end has those at work committed, and begins no other.

A shard that is cut off is only done again, but on a GPU that is a minute's work of 256 prompts; `ray job stop` and a
Kubernetes Pod that goes leave some seconds, and most of what is in flight can be kept in them. Ctrl-C does not wait.
"""

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError

from speed_ray.on_ray import nodes


class _Doorman:
    """Knows who is inside. One that dies inside is never counted out: its driver waits no longer than it may."""

    def __init__(self) -> None:
        self._open = True
        self._inside = 0

    def enter(self) -> bool:
        self._inside += self._open
        return self._open

    def leave(self) -> None:
        self._inside -= 1

    def close(self) -> None:
        self._open = False

    def inside(self) -> int:
        return self._inside


class Gate:
    """One job's gate, in the driver and, as a copy, in every actor."""

    def __init__(self) -> None:
        self._doorman: ActorHandle[_Doorman] = ray.remote(num_cpus=0, scheduling_strategy=nodes.here())(
            _Doorman
        ).remote()

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
