"""Find semantic duplicates: examples whose queries have nearly the same vector by a reference model.

In order of the rows, one is dropped when an earlier one that stays is near enough. Up to 20,000 rows every pair is
compared; more are first parted into cells by k-means, as SemDeDup does (arXiv 2303.09540), and a pair that a border
parts is missed. Vectors stay on disk; what is held at once is two blocks and their products.
"""

import math
from collections.abc import Iterator

import numpy as np

from speed_ray.curation.near_duplicates import Flags
from speed_ray.curation.reference_model import Numbers, Vectors
from speed_ray.text.token_hashes import Places

CELL = 20_000  # rows, about
BLOCK = 2_048  # rows


def find_semantic_duplicates(vectors: Vectors, wanted: Flags, similarity: float) -> Places:
    """Find for each row the first kept row of cosine >= `similarity`, else itself. -> indices (rows,)

    `vectors` are of length 1, (rows, width). Only `wanted` rows (rows,) are compared.
    """
    first = np.arange(len(wanted))
    for cell in _cells(vectors, np.flatnonzero(wanted)):
        stays = np.ones(len(cell), bool)
        for begin in range(0, len(cell), BLOCK):
            for earlier in range(0, begin + 1, BLOCK):
                _compare(vectors, cell, stays, first, similarity, (earlier, begin))
    return first


def _compare(
    vectors: Vectors, cell: Places, stays: Flags, first: Places, similarity: float, blocks: tuple[int, int]
) -> None:
    """Mark the rows of the second block that repeat a kept row of the first, or an earlier row where both are one."""
    earlier, later = (cell[begin : begin + BLOCK] for begin in blocks)
    near = _floats(vectors, later) @ _floats(vectors, earlier).T >= similarity
    if blocks[0] == blocks[1]:
        near = np.tril(near, -1)
    for row in np.flatnonzero(near.any(1)).tolist():
        found = np.flatnonzero(near[row] & stays[blocks[0] : blocks[0] + len(earlier)])
        if len(found) and stays[blocks[1] + row]:
            stays[blocks[1] + row] = False
            first[later[row]] = earlier[found[0]]


def _cells(vectors: Vectors, places: Places) -> Iterator[Places]:
    """Cluster the rows so that near ones are mostly together; yield the rows of each cluster, in order."""
    count = math.ceil(len(places) / CELL)
    if count < 2:
        yield places
        return
    from sklearn.cluster import MiniBatchKMeans  # there wherever sentence-transformers is

    means = MiniBatchKMeans(count, random_state=0, batch_size=BLOCK, n_init=1)
    means.fit(_floats(vectors, places[:: max(1, count // 2)]))  # some 40,000 rows
    cells = np.concatenate([means.predict(_floats(vectors, some)) for some in _blocks(places)])
    for cell in range(count):
        yield places[cells == cell]


def _blocks(places: Places) -> Iterator[Places]:
    yield from (places[begin : begin + BLOCK] for begin in range(0, len(places), BLOCK))


def _floats(vectors: Vectors, places: Places) -> Numbers:
    return np.asarray(vectors[places], np.float32)
