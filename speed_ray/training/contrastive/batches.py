"""Which rows are a step's batch in contrastive training: drawn by kind, from what was read and a seed alone.

A batch holds rows of one kind, so that negatives from the batch are hard; what a kind has left over at its end is put
together with what others have, where they may be mixed. Rows with unlike numbers of negatives never meet: a column of
padding would be taken for text.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np


class Family(NamedTuple):
    """Rows that may be one batch: their kind, how many negatives each has, and whether only these count against it."""

    kind: str
    negatives: int
    own_negatives_only: bool


class Batch(NamedTuple):
    """A global batch, before workers share it out. Places are any numbers that rows are known by."""

    own_negatives_only: bool
    places: np.ndarray


Members = Mapping[Family, np.ndarray]  # the places of each family's rows


def draw_batches(
    members: Members, size: int, rng: np.random.Generator
) -> tuple[list[Batch], dict[Family, np.ndarray]]:
    """Return batches of `size` rows each, in a drawn order, and the rows that fill no batch any more."""
    batches: list[Batch] = []
    rests: dict[tuple[int, bool], list[tuple[Family, np.ndarray]]] = defaultdict(list)
    for family in sorted(members):
        drawn = rng.permutation(members[family])
        full = len(drawn) // size * size
        batches += [Batch(family.own_negatives_only, part) for part in _parts(drawn[:full], size)]
        rests[family.negatives, family.own_negatives_only].append((family, drawn[full:]))
    left: dict[Family, np.ndarray] = {}
    for (_, own_negatives_only), rest in sorted(rests.items(), key=lambda each: each[0]):
        mixed = rng.permutation(np.concatenate([places for _, places in rest]))
        full = len(mixed) // size * size
        batches += [Batch(own_negatives_only, part) for part in _parts(mixed[:full], size)]
        left |= {family: places[np.isin(places, mixed[full:])] for family, places in rest}
    return [batches[place] for place in rng.permutation(len(batches))], left


def _parts(places: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (places[first : first + size] for first in range(0, len(places), size))
