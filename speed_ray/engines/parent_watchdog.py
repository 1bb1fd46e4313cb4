"""End vLLM's EngineCore process when its parent process ends, however it ends.

vLLM's EngineCore outlives a SIGKILLed parent and keeps its memory (2.6 GB seen for a tiny model; all of a GPU for a
real one), so the next engine on that node finds none. A thread in the EngineCore watches its parent instead. It needs
no installed plugin, so it also works where a job's working directory is all that a node has of this package. The
kernel's PR_SET_PDEATHSIG was left aside: it follows the thread that spawned the process, and Ray's come and go.
"""

import multiprocessing
import os
import signal
import threading
import time
from typing import Any

POLL_SECONDS = 0.5  # getppid costs less than a microsecond


class EndsWithParent:
    """Wraps an executor class for pickling: unpickling it in EngineCore starts the watchdog and returns the class.

    Unpickling comes before the EngineCore's handshake, which would otherwise wait five minutes for a dead parent.
    """

    def __init__(self, executor_class: type) -> None:
        self.executor_class = executor_class

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrive, (self.executor_class, os.getpid())


def start_watchdog(parent: int) -> None:
    """Start a thread that kills this process once its parent, of that process id, has ended."""
    threading.Thread(target=_end_with, args=(parent,), name="end-with-parent", daemon=True).start()


def _arrive(executor_class: type, parent: int) -> type:
    start_watchdog(parent)
    return executor_class


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    for worker in multiprocessing.active_children():  # vLLM's tensor-parallel workers
        worker.kill()
    os.kill(os.getpid(), signal.SIGKILL)
