"""Which rows are a step's batch in contrastive training: a pure function of the rows' kinds, the seed and the epoch.

A batch holds rows of one kind, so that negatives from the batch are hard; what a kind has left over at its end is put
together with what others have, where they may be mixed. Rows with unlike numbers of negatives never meet: a column of
padding would be taken for text. A resumed training sees the batches that an unbroken one sees.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Family:
    """Rows that may be one batch: their kind, how many negatives each has, and whether only these count against it."""

    kind: str
    negatives: int
    own_negatives_only: bool


@dataclass(frozen=True)
class Batch:
    """A global batch, before workers share it out: places among the rows."""

    own_negatives_only: bool
    places: np.ndarray


def epoch(families: Sequence[Family], size: int, seed: int, number: int) -> list[Batch]:
    """Return the batches of an epoch, `families[i]` being that of row i, each of `size` rows and in a drawn order.

    Fewer rows than a batch, left at the end of all that may be mixed, wait for the next epoch, which draws others.
    """
    rng = np.random.default_rng([seed, number])
    places: dict[Family, list[int]] = defaultdict(list)
    for place, family in enumerate(families):
        places[family].append(place)
    batches: list[Batch] = []
    rests: dict[tuple[int, bool], list[np.ndarray]] = defaultdict(list)
    for family in sorted(places, key=lambda each: (each.kind, each.negatives)):
        drawn = rng.permutation(places[family])
        full = len(drawn) // size * size
        batches += [Batch(family.own_negatives_only, part) for part in _parts(drawn[:full], size)]
        rests[family.negatives, family.own_negatives_only].append(drawn[full:])
    for (_, own_negatives_only), rest in sorted(rests.items(), key=lambda each: each[0]):
        mixed = rng.permutation(np.concatenate(rest))
        batches += [Batch(own_negatives_only, part) for part in _parts(mixed[: len(mixed) // size * size], size)]
    return [batches[place] for place in rng.permutation(len(batches))]


def _parts(places: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (places[first : first + size] for first in range(0, len(places), size))
