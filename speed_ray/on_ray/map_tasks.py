"""Pieces of work that know nothing of each other, shared out among a few actors: the tasks of an evaluation."""

import logging
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import ray
from ray.exceptions import RayActorError
from ray.util import ActorPool
from rich.console import Console

from speed_ray.errors import Interrupted, UserError
from speed_ray.on_ray import capacity
from speed_ray.on_ray.progress import LINE_EVERY
from speed_ray.on_ray.session import resources, session
from speed_ray.recipes.schema import Workers

log = logging.getLogger(__name__)
Piece = TypeVar("Piece")


def map_tasks(name: str, pieces: Sequence[Piece], work: Callable[[Piece], None], workers: Workers) -> None:
    """Do every piece, each by one actor; nothing is started where there is none.

    What one piece lacks ends no other: all are tried, then UserError or Interrupted says what went wrong. A worker
    that is lost is made up for `workers.retries` times.
    """
    if not pieces:
        return
    with session():
        capacity.check_capacity(capacity.ResourceNeed(f"{name}.workers", workers))
        try:
            failed = _share_out(name, pieces, work, workers)
        except RayActorError as error:
            raise Interrupted(
                f"{name}: a worker was lost {workers.retries + 1} times, the last time so: {error}\n"
                "What is done is kept: run the same command again."
            ) from error
    if failed:
        kind = UserError if any(kind == UserError.__name__ for kind, _ in failed) else Interrupted
        raise kind("\n".join(dict.fromkeys(message for _, message in failed)))


def _share_out(
    name: str, pieces: Sequence[Piece], work: Callable[[Piece], None], workers: Workers
) -> list[tuple[str, str]]:
    """Return the kind and the message of every failure."""
    actor = ray.remote(
        num_cpus=workers.cpus,
        num_gpus=workers.gpus,
        accelerator_type=workers.accelerator,
        label_selector=workers.labels or None,
        max_restarts=workers.retries,
        max_task_retries=workers.retries,
    )(_Actor)
    pool = ActorPool([actor.remote(work) for _ in range(min(workers.count, len(pieces)))])
    for piece in pieces:
        pool.submit(lambda actor, piece: actor.do.remote(piece), piece)
    console, failed, done = Console(stderr=True), [], 0
    while pool.has_next():
        try:
            piece, kind, message = pool.get_next_unordered(timeout=LINE_EVERY)
        except TimeoutError:
            said = f"{done} of {len(pieces)} done; the cluster has {resources()}"
        else:
            done += 1
            failed += [(kind, message)] if kind else []
            said = f"{done} of {len(pieces)} · {piece}" + (" failed" if kind else "")
        console.print(f"{name}: {said}", markup=False, highlight=False, soft_wrap=True)
    return failed


class _Actor(Generic[Piece]):
    """One worker. It answers with the piece, and with why it could not be done."""

    def __init__(self, work: Callable[[Piece], None]) -> None:
        self.work = work

    def do(self, piece: Piece) -> tuple[str, str, str]:
        try:
            self.work(piece)
        except (UserError, Interrupted) as error:
            return str(piece), type(error).__name__, str(error)
        return str(piece), "", ""
