"""Search all passages of a corpus by cosine, a block of queries with a block of passages at a time.

No passage is missed, as an approximate index misses some. Vectors lie as float16 in a file that is read and not
mapped: the pages of a mapped file count as the process's own memory, which is to stay flat. On a GPU they are held.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from speed_ray.curation.near_duplicates import Pairs
from speed_ray.curation.passage_index import NOWHERE
from speed_ray.curation.reference_model import Numbers, Vectors
from speed_ray.text.token_hashes import Places

if TYPE_CHECKING:
    import torch

QUERIES = 1_024  # that are searched for at once
BLOCK = 8_192  # passages: 1,024 queries' cosines with them take 32 MB


@dataclass(frozen=True)
class Hits:
    """Hold what some queries found.

    ranks     of each query's own passage, from 1, among all but its copies. (queries,)
    nearest   indices of the nearest passages, the nearest first, NOWHERE where fewer were found. (queries, depth)
    """

    ranks: Places
    nearest: Places


class VectorFile:
    """Hold vectors of length 1 in a file of float16, (rows, width)."""

    def __init__(self, path: Path, width: int) -> None:
        self._file = path.open("w+b")
        self.width = width
        self.rows = 0

    def append(self, vectors: Vectors) -> None:
        """Add the next vectors, (rows, width)."""
        self._file.write(vectors.astype(np.float16).tobytes())
        self._file.flush()
        self.rows += len(vectors)

    def block(self, begin: int, rows: int) -> Vectors:
        """Read up to `rows` vectors from the row `begin` on."""
        size = 2 * self.width
        read = os.pread(self._file.fileno(), min(rows, self.rows - begin) * size, begin * size)
        return np.frombuffer(read, np.float16).reshape(-1, self.width)

    def gather(self, places: Places) -> Numbers:
        """Read the vectors of some rows, in the order given. -> (places, width)"""
        size = 2 * self.width
        read = b"".join([os.pread(self._file.fileno(), size, place * size) for place in places.tolist()])
        return np.frombuffer(read, np.float16).reshape(-1, self.width).astype(np.float32)


class VectorSearch:
    """Search by cosine."""

    def __init__(self, vectors: VectorFile, device: str) -> None:
        self.vectors = vectors
        self.device = device
        self._held: dict[int, torch.Tensor] = {}

    def search(self, queries: Numbers, own: Numbers, copies: Pairs, depth: int) -> Hits:
        """Rank all passages for some queries, (queries, width).

        `own` is the cosine of each with its own passage, (queries,); `copies` pairs each with the passages of the same
        text, its own among them, (pairs, 2).
        """
        import torch  # seconds, which a corpus that is searched by words need not wait

        asked, ours = (torch.from_numpy(each).to(self.device) for each in (queries, own[:, None]))
        above = torch.zeros(len(queries), dtype=torch.int64, device=self.device)
        best = torch.empty((len(queries), 0), device=self.device)
        places = torch.empty((len(queries), 0), dtype=torch.int64, device=self.device)
        for begin in range(0, self.vectors.rows, BLOCK):
            cosines = asked @ self._block(begin).T
            above += _count_rows(cosines > ours)
            query, passage = torch.from_numpy(_inside(copies, begin, cosines.shape[1])).to(self.device).T
            above -= torch.bincount(query[cosines[query, passage] > ours[query, 0]], minlength=len(queries))
            full = best.shape[1] == depth
            more, where = _nearer(cosines, best[:, -1:]) if full else cosines.topk(min(depth, cosines.shape[1]))
            best, order = torch.cat([best, more], 1).topk(min(depth, best.shape[1] + more.shape[1]))
            places = torch.cat([places, where + begin], 1).gather(1, order)
        return Hits((above + 1).cpu().numpy(), _padded(places.cpu().numpy(), depth))

    def _block(self, begin: int) -> "torch.Tensor":
        import torch

        block = self._held.get(begin)
        if block is None:
            block = torch.from_numpy(self.vectors.block(begin, BLOCK).copy()).to(self.device)
            if self.device != "cpu":
                self._held[begin] = block
        return block.float()


def _count_rows(flags: "torch.Tensor") -> "torch.Tensor":
    """Count the true flags of each row. On a CPU torch takes 42 ms for a block, numpy 4, its product 88."""
    import torch

    return flags.sum(1) if flags.is_cuda else torch.tensor([np.count_nonzero(row) for row in flags.numpy()])


def _nearer(cosines: "torch.Tensor", least: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
    """Gather what exceeds each row's `least`, and where: in 13 ms for a block, of which `topk` takes 42."""
    import torch

    rows, columns = (cosines > least).nonzero(as_tuple=True)
    counts = torch.bincount(rows, minlength=len(cosines))
    slots = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
    shape = len(cosines), int(counts.max())
    found, where = cosines.new_full(shape, -torch.inf), rows.new_zeros(shape)
    found[rows, slots], where[rows, slots] = cosines[rows, columns], columns
    return found, where


def _inside(copies: Pairs, begin: int, rows: int) -> Pairs:
    """Select the pairs whose passage lies in a block; passages are counted from its beginning."""
    inside = copies[(copies[:, 1] >= begin) & (copies[:, 1] < begin + rows)]
    return inside - np.array([0, begin])


def _padded(places: Places, depth: int) -> Places:
    missing = depth - places.shape[1]
    return np.pad(places, ((0, 0), (0, missing)), constant_values=NOWHERE) if missing > 0 else places
