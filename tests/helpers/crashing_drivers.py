"""Drivers that die at any operation on a store, and several that take turns, one operation at a time."""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import cycle
from typing import Any

from obstore.store import MemoryStore

from speed_ray.storage.store import ObjectStore

BEFORE, AFTER, LOST = "before", "after", "lost"
Turn = Callable[[], AbstractContextManager[Any]]


class Crash(BaseException):
    """The driver's process is gone."""


class Troubled:
    """A driver's view of a store: it dies before or after its n-th operation, or that operation's response is lost.

    After a lost response obstore sends the request again, so the operation happens twice. `turn` may hold each one.
    """

    def __init__(self, backend: MemoryStore, troubles: dict[int, str], turn: Turn = nullcontext) -> None:
        self.store = ObjectStore(backend, "memory://")
        self.uri = self.store.uri
        self.troubles = troubles
        self.turn = turn
        self.operations = 0
        self.dead = False
        self.one_at_a_time = threading.Lock()

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        return lambda *arguments: self._operate(getattr(self.store, verb), *arguments)

    def _operate(self, operation: Callable[..., Any], *arguments: Any) -> Any:
        with self.turn(), self.one_at_a_time:
            trouble = self.troubles.get(self.operations)
            self.operations += 1
            self.dead = self.dead or trouble == BEFORE
            if self.dead:
                raise Crash
            if trouble == LOST:
                with contextlib.suppress(FileNotFoundError):
                    operation(*arguments)
            self.dead = trouble == AFTER
            with contextlib.suppress(FileNotFoundError) if self.dead else nullcontext():
                result = operation(*arguments)
            if self.dead:
                raise Crash
            return result


class Driver(threading.Thread):
    """A job in a thread that makes one store operation each time it is told to."""

    def __init__(self, job: Callable[[Turn], None]) -> None:
        super().__init__(daemon=True)
        self.job = job
        self.asks: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self.go = threading.Semaphore(0)
        self.done = threading.Semaphore(0)
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.job(self.turn)
        except Crash:
            pass
        except BaseException as error:
            self.error = error
        self.asks.put(False)

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Wait to be told, and tell when it is done."""
        self.asks.put(True)
        assert self.go.acquire(timeout=60)
        try:
            yield
        finally:
            self.done.release()

    def step(self) -> bool:
        """Let the next operation happen. Returns whether there was one."""
        if not self.asks.get(timeout=60):
            return False
        self.go.release()
        assert self.done.acquire(timeout=60)
        return True


def interleave(jobs: list[Callable[[Turn], None]], choices: list[int]) -> None:
    """Run jobs side by side, one operation at a time; `choices`, repeated, says whose turn it is."""
    drivers = [Driver(job) for job in jobs]
    alive = list(drivers)
    for choice in cycle(choices):
        if not alive:
            break
        driver = alive[choice % len(alive)]
        if not driver.step():
            alive.remove(driver)
    for driver in drivers:
        if driver.error:
            raise driver.error
