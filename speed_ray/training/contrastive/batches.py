"""Draw the batches of contrastive training: windows of shards -> shuffled batches of rows of one kind.

A batch holds rows of one kind, so that in-batch negatives are hard; what remains of the kinds at the end of a window
is mixed, where kinds may be. Rows with unequal numbers of positives or negatives never share a batch: a column of
padding would count as a text.

Each epoch shuffles the shards and goes through them in windows, so that memory stays flat; rows that fill no batch
move on to the next window, and at the end of the epoch into smaller batches: an epoch takes every row once, also of a
kind that fills no batch at all. All of it is a function of the seed and the shards alone, so a resumed training sees
the batches of an uninterrupted one. A training that streams a synthesis has one epoch, and writes its windows down:

    <run>/models/embedder/windows/<plan>/<number>.json    the shards of a window; an empty list ends training

`plan` is the beginning of the digest of the streamed artifact's plan: windows of other rows are never read. Each file
is created once, by rank 0, and read by all ranks, so no shard is trained on twice.
"""

import itertools
import json
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from speed_ray.errors import Interrupted
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import Artifact
from speed_ray.storage.store import read_json
from speed_ray.storage.trained_models import Model
from speed_ray.training import distributed

ROW_BITS = 32  # of a row index: shard << 32 | row in the shard
POLL_SECONDS = 1.0
STALL_SECONDS = 30 * 60.0


class BatchGroup(NamedTuple):
    """Rows that may share a batch: their kind, its negatives policy, and how many texts of each sort a row has."""

    kind: str
    negatives: int
    no_in_batch_negatives: bool
    positives: int = 1

    @property
    def shape(self) -> tuple[int, bool, int]:
        """Return what rows of several kinds must share to be in one batch."""
        return self[1:]


class Batch(NamedTuple):
    """A global batch: the row indices of all workers together, int64 (rows,), at most `global_batch_size`."""

    no_in_batch_negatives: bool
    rows: np.ndarray


RowsByGroup = Mapping[BatchGroup, np.ndarray]  # row indices, or rows in a shard: integers (rows,)


class Window(NamedTuple):
    """Shards whose rows are shuffled together. `number` counts within the epoch, `is_last` ends it."""

    epoch: int
    number: int
    shards: tuple[int, ...]
    is_last: bool


class WindowBatches(NamedTuple):
    """The batches of a window, of rows of its shards and of rows left over before; and the rows left over now."""

    window: Window
    batches: list[Batch]
    leftover: dict[BatchGroup, np.ndarray]


def draw_batches(
    groups: RowsByGroup, size: int, rng: np.random.Generator, is_last: bool
) -> tuple[list[Batch], dict[BatchGroup, np.ndarray]]:
    """Shuffle rows into batches of `size` rows; return the batches in random order, and the rows left over.

    `groups` holds the row indices of each group, integers (rows,). With `is_last` no row is left over: those that fill
    no batch are divided evenly among as few smaller ones as hold them.
    """
    batches: list[Batch] = []
    rests: dict[tuple[int, bool, int], list[tuple[BatchGroup, np.ndarray]]] = defaultdict(list)
    for group in sorted(groups):
        shuffled = rng.permutation(groups[group])
        full = len(shuffled) // size * size
        batches += [Batch(group.no_in_batch_negatives, rows) for rows in _split(shuffled[:full], size)]
        rests[group.shape].append((group, shuffled[full:]))
    leftover: dict[BatchGroup, np.ndarray] = {}
    for (_, no_in_batch_negatives, _), rest in sorted(rests.items(), key=lambda item: item[0]):
        mixed = rng.permutation(np.concatenate([rows for _, rows in rest]))
        full = len(mixed) if is_last else len(mixed) // size * size
        batches += [Batch(no_in_batch_negatives, rows) for rows in _split(mixed[:full], size)]
        leftover |= {group: rows[np.isin(rows, mixed[full:])] for group, rows in rest}
    return [batches[index] for index in rng.permutation(len(batches))], leftover


def _split(rows: np.ndarray, size: int) -> list[np.ndarray]:
    count = math.ceil(len(rows) / size)
    return np.array_split(rows, count) if count else []


def count_batches(shards: Iterable[RowsByGroup], size: int) -> int:
    """Return the number of batches of one epoch, smaller ones included, of the rows of all shards."""
    rows: Counter[tuple[int, bool, int]] = Counter()
    for groups in shards:
        for group, indices in groups.items():
            rows[group.shape] += len(indices)
    return sum(math.ceil(count / size) for count in rows.values())


def shuffle_windows(shard_rows: Sequence[int], min_rows: int, seed: int) -> Iterator[Window]:
    """Yield windows of shuffled shards for ever, epoch after epoch.

    `shard_rows` holds the number of rows of each shard; a window has `min_rows` or more, but for an epoch's last.
    """
    for epoch in itertools.count():
        shards: list[int] = []
        number = 0
        order = np.random.default_rng([seed, epoch]).permutation(len(shard_rows)).tolist()
        for shard in order:
            shards.append(shard)
            if shard == order[-1] or sum(shard_rows[each] for each in shards) >= min_rows:
                yield Window(epoch, number, tuple(shards), shard == order[-1])
                shards, number = [], number + 1


def draw_window_batches(
    windows: Iterable[Window], groups_of: Callable[[int], RowsByGroup], size: int, seed: int
) -> Iterator[WindowBatches]:
    """Yield the batches of each window, of at most `size` rows; `groups_of` maps a shard to int32 rows by group."""
    leftover: dict[BatchGroup, np.ndarray] = {}
    for window in windows:
        groups: dict[BatchGroup, list[np.ndarray]] = {group: [rows] for group, rows in leftover.items()}
        for shard in window.shards:
            for group, rows in groups_of(shard).items():
                groups.setdefault(group, []).append(rows.astype(np.int64) + (shard << ROW_BITS))
        rng = np.random.default_rng([seed, window.epoch, window.number])
        joined = {group: np.concatenate(rows) for group, rows in groups.items()}
        drawn, leftover = draw_batches(joined, size, rng, window.is_last)
        yield WindowBatches(window, drawn, leftover)


def streamed_windows(model: Model, artifact: Artifact, plan: Plan, min_rows: int) -> Iterator[Window]:
    """Yield windows of newly committed shards, about `min_rows` rows each, until the plan's last shard is committed.

    The last window is without shards: whether there are more is not known before.
    Raises Interrupted where no shard was committed for half an hour.
    """
    taken: set[int] = set()
    min_shards = math.ceil(min_rows / plan.shard_rows)
    number = 0
    while shards := _next_window(model, artifact, plan, min_shards, taken, number):
        yield Window(0, number, tuple(shards), is_last=False)
        taken.update(shards)
        number += 1
    yield Window(0, number, (), is_last=True)


def _next_window(
    model: Model, artifact: Artifact, plan: Plan, min_shards: int, taken: set[int], number: int
) -> list[int]:
    """Return the shards of a window. Rank 0 writes it, and it alone judges that no shard comes any more.

    The others wait for as long as rank 0 does: whoever started the ranks ends all of them when one fails.
    """
    path = f"{model.path}/windows/{plan.digest[:16]}/{number:08d}.json"
    last_commit, seen = time.monotonic(), 0
    while True:
        written: list[int] | None = read_json(model.store, path, f"Delete {model.where} to train from the beginning.")
        if written is not None:
            return written
        if distributed.rank() == 0:
            pending = {shard for shard, _ in artifact.pending(plan)}
            new = [shard for shard in range(plan.shards) if shard not in pending and shard not in taken]
            if len(new) >= min_shards or not pending:
                model.store.create(path, json.dumps(new).encode())
                continue
            if len(new) > seen:
                last_commit, seen = time.monotonic(), len(new)
            if time.monotonic() - last_commit > STALL_SECONDS:
                raise Interrupted(
                    f"{artifact.where} has had no new shard for {STALL_SECONDS / 60:g} minutes, and "
                    "embedder.stream waits for more.\nRun the job that makes it again, then this command: "
                    "training goes on from its last checkpoint."
                )
        time.sleep(POLL_SECONDS)
