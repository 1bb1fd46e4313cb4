"""Joining a Ray cluster, or starting one on this machine, and leaving it as it was found."""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.data import DataContext


@contextmanager
def session() -> Iterator[None]:
    """Join the cluster that RAY_ADDRESS names (as `ray job submit` does), or start a private one for this process.

    A private cluster is asked for by address="local", so that a stray cluster on the machine is never joined. It is
    told of more CPUs than there are: they are only Ray's bookkeeping, and an actor pool on two cores would starve.
    """
    _quiet_ray_data()
    if ray.is_initialized():
        yield
        return
    on_sigterm = signal.getsignal(signal.SIGTERM)
    if os.environ.get("RAY_ADDRESS"):
        ray.init(logging_level="warning")
    else:
        cpus = max(os.cpu_count() or 1, 8)
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # the C++ core logs to stderr, past Python's logging
        ray.init(address="local", num_cpus=cpus, include_dashboard=False, logging_level="error", log_to_driver=False)
    try:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray's own, set by init, prints C++ frames and aborts
        yield
    finally:
        # A job that ends early cuts Ray Data's threads off, and each would print a traceback over the job's own words.
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        ray.shutdown()


def resources() -> str:
    """What the cluster has and what of it is free, in words for a diagnosis."""
    have, free = ray.cluster_resources(), ray.available_resources()
    kinds = [kind for kind in sorted(have) if not kind.startswith(("node:", "object_store", "memory"))]
    return ", ".join(f"{kind} {free.get(kind, 0):g} free of {have[kind]:g}" for kind in kinds) or "nothing"


def _quiet_ray_data() -> None:
    context = DataContext.get_current()
    context.enable_progress_bars = False  # ours counts rows that are committed, Ray's counts rows that move
    logging.getLogger("ray.data").setLevel(logging.ERROR)
