"""Training on a synthesis that is still running: which shards it took, in which windows, written down as it goes.

    <run>/models/embedder/windows/<number>.json    the shards of a window; an empty list ends it

Each is created once, by rank 0, and read by all. So no shard is taken twice, a resumed training sees the batches that
the first one saw, and storage alone proves both.
"""

import json
import math
import time
from collections.abc import Iterator

from speed_ray.errors import Interrupted
from speed_ray.storage.shards import Artifact, Plan
from speed_ray.storage.store import read_if_exists
from speed_ray.storage.trained_models import Model
from speed_ray.training import distributed
from speed_ray.training.contrastive.shuffle_windows import Window

LOOK = 1.0  # seconds between two looks at the storage
PATIENCE = 30 * 60.0  # seconds without a new shard


def streamed_windows(model: Model, artifact: Artifact, plan: Plan, least: int) -> Iterator[Window]:
    """Yield windows as their shards are committed, `least` rows or more in each, until the plan is done.

    Raises Interrupted where nothing came for half an hour.
    """
    taken: set[int] = set()
    number = 0
    while shards := _window(model, artifact, plan, math.ceil(least / plan.shard_rows), taken, number):
        yield Window(0, number, tuple(shards))
        taken.update(shards)
        number += 1


def _window(model: Model, artifact: Artifact, plan: Plan, least: int, taken: set[int], number: int) -> list[int]:
    path = f"{model.path}/windows/{number:08d}.json"
    began, seen = time.monotonic(), 0
    while True:
        if (written := read_if_exists(model.store, path)) is not None:
            shards: list[int] = json.loads(written)
            return shards
        if distributed.rank() == 0:
            pending = {shard for shard, _ in artifact.pending(plan)}
            new = [shard for shard in range(plan.shards) if shard not in pending and shard not in taken]
            if len(new) >= least or not pending:
                model.store.create(path, json.dumps(new).encode())
                continue
            if len(new) > seen:
                began, seen = time.monotonic(), len(new)
        if time.monotonic() - began > PATIENCE:
            raise Interrupted(
                f"{artifact.where} has had no new shard for {PATIENCE / 60:g} minutes, and embedder.follow waits.\n"
                "Drive the job that makes it on; then run the same command again: it goes on from the last checkpoint."
            )
        time.sleep(LOOK)
