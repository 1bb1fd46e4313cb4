"""Which rows are a step's batch in contrastive training: drawn by kind, from what was read and a seed alone.

A batch holds rows of one kind, so that negatives from the batch are hard; what a kind has left over at its end is put
together with what others have, where they may be mixed. Rows with unlike numbers of negatives never meet: a column of
padding would be taken for text.
"""

import itertools
import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from speed_ray.errors import Interrupted
from speed_ray.storage.shards import Artifact, Plan
from speed_ray.storage.store import read_if_exists
from speed_ray.storage.trained_models import Model
from speed_ray.training import distributed


class BatchGroup(NamedTuple):
    """Rows that may be one batch: their kind, how many negatives each has, and whether only these count against it."""

    kind: str
    negatives: int
    own_negatives_only: bool


class Batch(NamedTuple):
    """A global batch, before workers share it out. Places are any numbers that rows are known by."""

    own_negatives_only: bool
    places: np.ndarray


RowsByGroup = Mapping[BatchGroup, np.ndarray]  # the places of each family's rows


def draw_batches(
    members: RowsByGroup, size: int, rng: np.random.Generator
) -> tuple[list[Batch], dict[BatchGroup, np.ndarray]]:
    """Return batches of `size` rows each, in a drawn order, and the rows that fill no batch any more."""
    batches: list[Batch] = []
    rests: dict[tuple[int, bool], list[tuple[BatchGroup, np.ndarray]]] = defaultdict(list)
    for family in sorted(members):
        drawn = rng.permutation(members[family])
        full = len(drawn) // size * size
        batches += [Batch(family.own_negatives_only, part) for part in _full_batches(drawn[:full], size)]
        rests[family.negatives, family.own_negatives_only].append((family, drawn[full:]))
    left: dict[BatchGroup, np.ndarray] = {}
    for (_, own_negatives_only), rest in sorted(rests.items(), key=lambda each: each[0]):
        mixed = rng.permutation(np.concatenate([places for _, places in rest]))
        full = len(mixed) // size * size
        batches += [Batch(own_negatives_only, part) for part in _full_batches(mixed[:full], size)]
        left |= {family: places[np.isin(places, mixed[full:])] for family, places in rest}
    return [batches[place] for place in rng.permutation(len(batches))], left


def _full_batches(places: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (places[first : first + size] for first in range(0, len(places), size))


ROW_BITS = 32  # of a place: shard << 32 | row of the shard


class Window(NamedTuple):
    """Shards that are drawn from together. `number` counts within the epoch; the last one's rest is not passed on."""

    epoch: int
    number: int
    shards: tuple[int, ...]


class WindowBatches(NamedTuple):
    """A window's batches, which need rows of its own shards and of what the windows before it left over."""

    window: Window
    batches: list[Batch]
    left: dict[BatchGroup, np.ndarray]


def shuffle_windows(rows: Sequence[int], least: int, seed: int) -> Iterator[Window]:
    """Yield windows for ever, of at least `least` rows but for an epoch's last; `rows[k]` is how many shard k has."""
    for epoch in itertools.count():
        shards: list[int] = []
        number = 0
        for shard in np.random.default_rng([seed, epoch]).permutation(len(rows)).tolist():
            shards.append(shard)
            if sum(rows[each] for each in shards) >= least:
                yield Window(epoch, number, tuple(shards))
                shards, number = [], number + 1
        if shards:
            yield Window(epoch, number, tuple(shards))


def draw_window_batches(
    windows: Iterable[Window], families: Callable[[int], RowsByGroup], size: int, seed: int
) -> Iterator[WindowBatches]:
    """Yield each window's batches; `families` gives a shard's rows (by their number in it) by family."""
    left: dict[BatchGroup, np.ndarray] = {}
    for window in windows:
        if window.number == 0:
            left = {}  # fewer than a batch: the next epoch reads them again, and leaves out others
        members: dict[BatchGroup, list[np.ndarray]] = {family: [places] for family, places in left.items()}
        for shard in window.shards:
            for family, rows in families(shard).items():
                members.setdefault(family, []).append(rows.astype(np.int64) + (shard << ROW_BITS))
        rng = np.random.default_rng([seed, window.epoch, window.number])
        made, left = draw_batches({name: np.concatenate(parts) for name, parts in members.items()}, size, rng)
        yield WindowBatches(window, made, left)


def shard_and_row(place: int) -> tuple[int, int]:
    """Return the shard of a place, and the row's number in it."""
    return place >> ROW_BITS, place & ((1 << ROW_BITS) - 1)


POLL_SECONDS = 1.0  # seconds between two looks at the storage
STALL_SECONDS = 30 * 60.0  # seconds without a new shard


def streamed_windows(model: Model, artifact: Artifact, plan: Plan, least: int) -> Iterator[Window]:
    """Yield windows as their shards are committed, `least` rows or more in each, until the plan is done.

    Raises Interrupted where nothing came for half an hour.
    """
    taken: set[int] = set()
    number = 0
    while shards := _next_window_shards(model, artifact, plan, math.ceil(least / plan.shard_rows), taken, number):
        yield Window(0, number, tuple(shards))
        taken.update(shards)
        number += 1


def _next_window_shards(
    model: Model, artifact: Artifact, plan: Plan, least: int, taken: set[int], number: int
) -> list[int]:
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
        if time.monotonic() - began > STALL_SECONDS:
            raise Interrupted(
                f"{artifact.where} has had no new shard for {STALL_SECONDS / 60:g} minutes, and "
                "embedder.follow waits.\n"
                "Drive the job that makes it on; then run the same command again: it goes on from the last checkpoint."
            )
        time.sleep(POLL_SECONDS)
