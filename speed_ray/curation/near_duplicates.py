"""Find near-duplicates among any number of short texts: MinHash candidates, then the exact Jaccard of word pairs.

Word pairs, because of a text of 60 words with three of them changed 82% of the pairs stay in common, but 62% of the
runs of five. 20 bands of 3 rows find a pair of Jaccard 0.6 with 99%, and one of 0.3 with 42%: what is too many is
turned away by the exact comparison. Sketches and word pairs are kept in files, a band is looked at at a time, and the
driver keeps some 20 bytes a text.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Any, BinaryIO

import numpy as np
from rensa import RMinHash

from speed_ray.text.token_hashes import Hashes, Places, Words

BANDS, ROWS = 20, 3
AT_ONCE = 8_192  # candidates whose word pairs are compared at once

Flags = np.ndarray[Any, np.dtype[np.bool_]]
Pairs = np.ndarray[Any, np.dtype[np.int64]]  # (pairs, 2): the earlier text first
_DIGEST = Struct(f"{BANDS * ROWS}I")
_MIX = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64)


@dataclass(frozen=True)
class Sketches:
    """Hold the LSH bands of some texts, (BANDS, texts), their word pairs in order, and the number of each's."""

    bands: Hashes
    pairs: np.ndarray[Any, np.dtype[np.uint32]]
    counts: Places


def sketch(words: Words) -> Sketches:
    """Sketch texts by their word pairs; a text of one word has that word, one of none has nothing and repeats none."""
    counts = words.counts()
    alone = counts[words.owners] == 1
    pairs = words.grams(2)
    owners = np.concatenate([pairs.owners, words.owners[alone]])
    order = np.argsort(owners, kind="stable")
    hashes = np.concatenate([pairs.hashes, words.hashes[alone]])[order]
    each = np.bincount(owners, minlength=words.texts)
    offsets = np.concatenate([[0], np.cumsum(each)]).astype(np.uint64)
    digests = RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets, BANDS * ROWS, 0).to_rows()
    return Sketches(_banded(digests), hashes.astype(np.uint32), each)


def _banded(digests: list[list[int]]) -> Hashes:
    packed = b"".join([_DIGEST.pack(*digest) for digest in digests])  # a quarter of the time that numpy takes
    rows = np.frombuffer(packed, np.uint32).reshape(-1, BANDS, ROWS)
    hashed: Hashes = (rows * _MIX).sum(2, dtype=np.uint64).T
    return hashed


class MinHashIndex:
    """Index the sketches of all texts in files of a folder, in the order of the texts."""

    def __init__(self, folder: Path) -> None:
        self._bands = [(folder / f"band-{number}").open("w+b") for number in range(BANDS)]
        self._pairs = (folder / "pairs").open("w+b")
        self._counts = (folder / "counts").open("w+b")
        self.texts = 0

    def add(self, sketches: Sketches) -> None:
        """Add the next texts."""
        for file, band in zip(self._bands, sketches.bands, strict=True):
            file.write(band.tobytes())
        self._pairs.write(sketches.pairs.tobytes())
        self._counts.write(sketches.counts.astype(np.int64).tobytes())
        self.texts += len(sketches.counts)

    def find_duplicates(self, wanted: Flags, similarity: float) -> Places:
        """Find for each text the first text of its cluster, itself where it is alone. -> indices (texts,)

        A cluster joins `wanted` texts of a word-pair Jaccard >= `similarity`, over any number of steps.
        """
        starts = np.concatenate([[0], np.cumsum(_read(self._counts, np.int64))])
        compared = np.flatnonzero(wanted & (starts[1:] > starts[:-1]))
        first = np.arange(self.texts)
        self._pairs.flush()
        for file in self._bands:
            for some in _in_parts(_candidates(compared, _read(file, np.uint64)[compared], first)):
                some = some[first[some[:, 0]] != first[some[:, 1]]]
                near = _jaccard(some, self._pairs, starts) >= similarity
                _join(first, some[near])
        return first

    def close(self) -> None:
        """Close the files."""
        for file in (*self._bands, self._pairs, self._counts):
            file.close()


def find_equal(texts: Hashes, wanted: Flags) -> Places:
    """Find for each text the first `wanted` one with the same hash, itself where it is not wanted. -> indices"""
    first = np.arange(len(texts))
    indices = np.flatnonzero(wanted)
    _, begins, inverse = np.unique(texts[indices], return_index=True, return_inverse=True)
    first[indices] = indices[begins[inverse]]
    return first


def _candidates(texts: Places, band: Hashes, first: Places) -> Pairs:
    """Pair texts with the same hash: each with the one before it and with the first of all that share it."""
    order = np.argsort(band, kind="stable")
    texts, band = texts[order], band[order]
    same = np.flatnonzero(band[1:] == band[:-1]) + 1
    begins = np.flatnonzero(np.diff(band, prepend=~band[:1]))
    heads = texts[begins[np.searchsorted(begins, same, side="right") - 1]]
    earlier, later = np.concatenate([texts[same - 1], heads]), np.concatenate([texts[same], texts[same]])
    apart = first[earlier] != first[later]
    both = np.unique(earlier[apart] << 32 | later[apart])  # a quarter of the time that rows of two columns take
    return np.stack([both >> 32, both & 0xFFFFFFFF], 1)


def _in_parts(pairs: Pairs) -> Iterator[Pairs]:
    yield from (pairs[start : start + AT_ONCE] for start in range(0, len(pairs), AT_ONCE))


def _jaccard(pairs: Pairs, file: BinaryIO, starts: Places) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Compute the Jaccard of the word pairs of each pair of texts. (pairs, 2) -> (pairs,)"""
    tagged = [_tagged(texts, file, starts) << 1 | side for side, texts in enumerate(pairs.T)]
    both = np.concatenate(tagged)
    both.sort()
    both = both[np.diff(both, prepend=-1) > 0]  # a text may have a word pair twice
    shared = both[1:][both[1:] >> 1 == both[:-1] >> 1]
    intersection, sizes = (np.bincount(each >> 33, minlength=len(pairs)) for each in (shared, both))
    return intersection / np.maximum(sizes - intersection, 1)


def _tagged(texts: Places, file: BinaryIO, starts: Places) -> Places:
    """Read all hashes of some texts, with the index of the text in the bits above.

    Read and not mapped: the pages of a mapped file count as the process's own memory.
    """
    begins, ends = starts[texts], starts[texts + 1]
    spans = zip((4 * (ends - begins)).tolist(), (4 * begins).tolist(), strict=True)
    read = [os.pread(file.fileno(), size, place) for size, place in spans]
    hashes = np.frombuffer(b"".join(read), np.uint32).astype(np.int64)
    return np.repeat(np.arange(len(texts)), ends - begins) << 32 | hashes


def _join(first: Places, pairs: Pairs) -> None:
    """Merge the clusters of each pair (union-find); the earliest text is the root."""
    for one, other in pairs.tolist():
        a, b = _root(first, one), _root(first, other)
        first[max(a, b)] = min(a, b)
    while not np.array_equal(first, onward := first[first]):
        first[:] = onward


def _root(first: Places, text: int) -> int:
    while first[text] != text:
        text = int(first[text])
    return text


def _read(file: BinaryIO, kind: Any) -> np.ndarray[Any, Any]:
    file.flush()
    file.seek(0)
    return np.fromfile(file, kind)
