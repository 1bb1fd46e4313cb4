"""Join a Ray cluster, or start one on this machine, and leave it as it was found."""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import ray
from ray.data import DataContext

from speed_ray.errors import Interrupted, UserError
from speed_ray.on_ray.cluster import ensure_token

_shared = ContextVar("shared", default=False)


@contextmanager
def shared_session() -> Iterator[None]:
    """Let all jobs of a command use one private Ray, which the first that needs one starts.

    A Ray of its own would cost each job some ten seconds of one core.
    """
    own = not ray.is_initialized()
    before = _shared.set(True)
    try:
        yield
    finally:
        _shared.reset(before)
    if own:
        ray.shutdown()  # which does nothing where no job has started it


@contextmanager
def session() -> Iterator[None]:
    """Join the cluster that RAY_ADDRESS names (as `ray job submit` does), or start a private one for this process.

    A private cluster has address="local", so that a stray cluster on the machine is never joined, and at least eight
    CPUs, however few there are: they are only Ray's bookkeeping, and an actor pool on two cores would starve.

    When the job raises, Ray is left as it is: it ends with this process (see cli.py), or serves its next session.
    """
    _quiet_ray_data()
    if ray.is_initialized():
        yield
        return
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        _start()
    except SystemExit as ended:  # Ray's own SIGTERM handler, while it starts
        raise (KeyboardInterrupt if ended.code == signal.SIGTERM else ended) from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray's own, set by init, prints C++ frames and aborts
    yield
    # Only after a job that ran to its end. One that ends early leaves Ray Data's threads at work; there is no public
    # way to stop them, and the first that calls into a Ray that was shut down ends the process: code 1, no message.
    if not _shared.get():
        ray.shutdown()


def _start() -> None:
    address = os.environ.get("RAY_ADDRESS")
    try:
        if address:
            ray.init(logging_level="warning")
            return
        # Ray would make the token readable by everybody on this machine: who has it runs code as this user.
        ensure_token(create=True)
        cpus = max(os.cpu_count() or 1, 8)
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # the C++ core logs to stderr, past Python's logging
        _start_here(cpus)
    except UserError:
        raise
    except Exception as error:  # Ray raises plain ones: ConnectionError, RuntimeError, Exception
        what = f"the cluster at {address} (RAY_ADDRESS) did not answer" if address else "Ray did not start here"
        when = (
            "the cluster is there"
            if address
            else "the machine is less busy: Ray gives its processes 30 s, and had them twice"
        )
        raise Interrupted(
            f"{what}: {error}\nNothing that was committed is lost. Run the same command again when {when}."
        ) from error


def _start_here(cpus: int) -> None:
    """Start a private Ray, twice if need be: its processes have 30 s to come up, too few on a busy machine."""
    for last in (False, True):
        try:
            ray.init(
                address="local", num_cpus=cpus, include_dashboard=False, logging_level="error", log_to_driver=False
            )
            return
        except Exception:
            if last:
                raise
            ray.shutdown()


def uses_shared_cluster() -> bool:
    """Return whether jobs run on a cluster that was there before, not on one of this process."""
    return bool(os.environ.get("RAY_ADDRESS"))


def resources() -> str:
    """Return what the cluster has and what of it is free, as text for a diagnosis."""
    have, free = ray.cluster_resources(), ray.available_resources()
    internal = ("node:", "object_store", "memory")  # Ray's own bookkeeping, as are the parts of placement groups
    kinds = [kind for kind in sorted(have) if not kind.startswith(internal) and "_group_" not in kind]
    return ", ".join(f"{kind} {free.get(kind, 0):g} free of {have[kind]:g}" for kind in kinds) or "nothing"


def _quiet_ray_data() -> None:
    context = DataContext.get_current()
    context.enable_progress_bars = False  # ours counts rows that are committed, Ray's counts rows that move
    logging.getLogger("ray.data").setLevel(logging.ERROR)
