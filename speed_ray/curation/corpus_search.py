"""Search a corpus for the queries of all examples, once: for the rank of each one's passage, and for its negatives.

What is found lies in files, 4 bytes for each of the nearest passages of an example.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from speed_ray.curation.exact_search import QUERIES, Hits, VectorFile
from speed_ray.curation.near_duplicates import Flags
from speed_ray.curation.passage_index import NOWHERE, PassageIndex
from speed_ray.curation.query_blocks import Corpus, QueryBlock, search_vectors
from speed_ray.curation.reference_model import KEY, Vectors
from speed_ray.curation.scan import hash_texts
from speed_ray.errors import UserError
from speed_ray.recipes.curate_settings import Curate, FoundAgain, Retriever
from speed_ray.records import Row
from speed_ray.storage.shards import Artifact
from speed_ray.text.rules import is_plain
from speed_ray.text.token_hashes import Hashes, Places

COLUMNS = ["parent_id", "query", "positive"]


@dataclass(frozen=True)
class Found:
    """Hold what was found for all examples.

    parents   the passage that each was written about, or NOWHERE. (rows,)
    answers   the same where that passage is its positive. (rows,)
    texts     hash of the positive's text. (rows,)
    ranks     by retriever: of its passage, 0 where it has none or was not searched for. (rows,)
    nearest   by retriever: indices of passages, on disk. (rows, depth)
    """

    parents: Places
    answers: Places
    texts: Hashes
    ranks: dict[Retriever, Places]
    nearest: dict[Retriever, "PlaceFile"]

    def put(self, name: Retriever, rows: Places, hits: Hits) -> None:
        """Add what a retriever found for some rows; a rank has only a row with a passage of its own."""
        self.ranks[name][rows] = np.where(self.answers[rows] == NOWHERE, 0, hits.ranks)
        self.nearest[name].put(rows, hits.nearest)

    def lost(self, wanted: FoundAgain) -> Flags:
        """Tell which examples' passages are not among the first that their queries find. (rows,)"""
        found = np.stack([(self.ranks[name] > 0) & (self.ranks[name] <= wanted.top) for name in wanted.by])
        return (self.answers != NOWHERE) & ~(found.all(0) if wanted.all else found.any(0))

    def not_found(self, row: int, wanted: FoundAgain) -> tuple[str, str]:
        """Return the reason and the detail of one that is lost."""
        said = ", ".join(f"{self.ranks[name][row]:,} by {name}" for name in wanted.by)
        needed = (" and " if wanted.all else " or ").join(wanted.by)
        return "not_found_again", f"its passage has rank {said}; wanted up to {wanted.top} by {needed}"


class PlaceFile:
    """Hold indices of passages in a file of int32, (rows, depth)."""

    def __init__(self, path: Path, rows: int, depth: int) -> None:
        self._file = path.open("w+b")
        self._file.truncate(4 * rows * depth)
        self.depth = depth

    def put(self, rows: Places, places: Places) -> None:
        """Write some rows."""
        for row, line in zip(rows.tolist(), places.astype(np.int32), strict=True):
            os.pwrite(self._file.fileno(), line.tobytes(), 4 * self.depth * row)

    def rows_at(self, rows: Places) -> Places:
        """Read some rows, which are in order."""
        size, begin = 4 * self.depth, int(rows[0])
        read = os.pread(self._file.fileno(), size * (int(rows[-1]) + 1 - begin), size * begin)
        return np.frombuffer(read, np.int32).reshape(-1, self.depth)[rows - begin].astype(np.int64)


def search_corpus(
    corpus: Corpus, source: Artifact, settings: Curate, searched: Flags, vectors: Vectors | None, folder: Path
) -> Found:
    """Search the corpus for the queries of the `searched` examples. `vectors`: of query and positive, on disk.

    Raises UserError where the passages' vectors are no longer those of the reference.
    """
    by, depth, rows = retrievers(settings), settings.mine_negatives.depth, len(searched)
    found = _place(corpus.index, source)
    for name in by:
        found.ranks[name] = np.zeros(rows, np.int64)
        found.nearest[name] = PlaceFile(folder / f"nearest-{name}", rows, depth)
    if corpus.vectors is not None and vectors is not None:
        _refuse_other_width(corpus.vectors, vectors, settings)
    if "bm25" in by:
        for batch, hits in _search_words(corpus.index, source, searched, found, depth):
            found.put("bm25", batch, hits)
    if "reference" in by:
        assert vectors is not None
        asked = np.flatnonzero(searched)
        parts = (asked[begin : begin + QUERIES] for begin in range(0, len(asked), QUERIES))
        blocks = [QueryBlock(part, corpus, vectors, found.answers, found.texts, depth) for part in parts]
        for batch, hits in search_vectors(corpus, blocks, settings.workers):
            found.put("reference", batch, hits)
    return found


def retrievers(settings: Curate) -> list[Retriever]:
    """List the retrievers that found_again and mine_negatives need, each once."""
    found = settings.found_again.by if settings.found_again else []
    return list(dict.fromkeys([*found, *(settings.miners if settings.mine_negatives.count else [])]))


def _place(index: PassageIndex, source: Artifact) -> Found:
    """Find the passages that the examples are about."""
    parts = []
    for rows in _batches(source):
        parents = index.parents_of(rows)
        answers = index.answers_of(rows, parents)
        texts = hash_texts([is_plain(row["positive"]) for row in rows])
        parts.append((parents, answers, np.where(answers == NOWHERE, texts, index.texts[answers])))
    parents, answers, texts = map(np.concatenate, zip(*parts, strict=True))
    return Found(parents, answers, texts, {}, {})


def _search_words(
    index: PassageIndex, source: Artifact, searched: Flags, found: Found, depth: int
) -> Iterator[tuple[Places, Hits]]:
    from speed_ray.curation.word_search import WordSearch  # its library takes a second to load

    search, begin = WordSearch(map(index.text, range(len(index)))), 0
    for rows in _batches(source):
        batch = begin + np.flatnonzero(searched[begin : begin + len(rows)])
        queries = [rows[row - begin]["query"] for row in batch.tolist()]
        yield batch, search.search(queries, found.answers[batch], index.copies_of(found.texts[batch]), depth)
        begin += len(rows)


def _batches(source: Artifact) -> Iterator[list[Row]]:
    files = source.record_files().values()
    rows = (row for file in files for row in source.read(file.path).select(COLUMNS).to_pylist())
    while batch := list(islice(rows, QUERIES)):
        yield batch


def _refuse_other_width(passages: VectorFile, vectors: Vectors, settings: Curate) -> None:
    if vectors.shape[2] != passages.width:
        raise UserError(
            f"{KEY}: {settings.reference} makes vectors of {vectors.shape[2]} numbers, and those of the passages, "
            f"which it made before, have {passages.width}.\nIt was changed since: name the one that it was, or "
            "use another --run folder."
        )
