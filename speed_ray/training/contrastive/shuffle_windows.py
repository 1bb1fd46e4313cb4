"""What rows contrastive training draws its batches from: a window of some shards at a time, so that memory stays flat.

Each epoch goes through the shards in an order of its own, and what a window leaves over joins the next. All of it is a
pure function of the seed and of which shards were there, so a resumed training sees the batches that an unbroken one
sees. Following a running synthesis, the shards that were there are remembered; there is one epoch then.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from speed_ray.training.contrastive import batches
from speed_ray.training.contrastive.batches import Batch, Family, Members

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
    left: dict[Family, np.ndarray]


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
    windows: Iterable[Window], families: Callable[[int], Members], size: int, seed: int
) -> Iterator[WindowBatches]:
    """Yield each window's batches; `families` gives a shard's rows (by their number in it) by family."""
    left: dict[Family, np.ndarray] = {}
    for window in windows:
        if window.number == 0:
            left = {}  # fewer than a batch: the next epoch reads them again, and leaves out others
        members: dict[Family, list[np.ndarray]] = {family: [places] for family, places in left.items()}
        for shard in window.shards:
            for family, rows in families(shard).items():
                members.setdefault(family, []).append(rows.astype(np.int64) + (shard << ROW_BITS))
        rng = np.random.default_rng([seed, window.epoch, window.number])
        made, left = batches.draw_batches({name: np.concatenate(parts) for name, parts in members.items()}, size, rng)
        yield WindowBatches(window, made, left)


def shard_of(place: int) -> tuple[int, int]:
    """Return the shard of a place, and the row's number in it."""
    return place >> ROW_BITS, place & ((1 << ROW_BITS) - 1)
