"""Search the vectors of a corpus for blocks of queries, here or on Ray's workers, each with its own copy of them."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from speed_ray.curation.exact_search import Hits, VectorFile, VectorSearch
from speed_ray.curation.near_duplicates import Pairs
from speed_ray.curation.passage_index import NOWHERE, PassageIndex
from speed_ray.curation.reference_model import Numbers, Vectors
from speed_ray.recipes.training_settings import Workers
from speed_ray.storage.run import Run
from speed_ray.storage.shards import Artifact
from speed_ray.text.token_hashes import Hashes, Places


@dataclass(frozen=True)
class Corpus:
    """Hold a corpus that is ready to be searched: the index of its passages, and their vectors on disk."""

    index: PassageIndex
    embeddings: Artifact | None
    vectors: VectorFile | None


def open_corpus(passages: Artifact, embeddings: Artifact | None, folder: Path) -> Corpus:
    """Read published passages and their vectors into files of a folder."""
    vectors = None if embeddings is None else _read_vectors(embeddings, folder)
    return Corpus(PassageIndex(passages, folder), embeddings, vectors)


def own_vectors(corpus: Corpus, vectors: Vectors, answers: Places) -> tuple[Numbers, Numbers]:
    """Return the vectors of some queries, and those of their passages, or of positives that are none.

    `vectors` are of query and positive, (rows, 2, width); each side is (rows, width).
    """
    assert corpus.vectors is not None
    queries, positives = np.asarray(vectors, np.float32).swapaxes(0, 1)
    has = answers != NOWHERE
    positives[has] = corpus.vectors.gather(answers[has])
    return np.ascontiguousarray(queries), positives


@dataclass(frozen=True)
class Asked:
    """Hold a block of queries as `VectorSearch.search` takes them, and as they travel to a worker."""

    queries: Numbers
    own: Numbers
    copies: Pairs
    depth: int

    def read(self) -> "Asked":
        """Return itself: its vectors are read."""
        return self


@dataclass(frozen=True)
class QueryBlock:
    """Name the rows of a block of queries, which are read when they are searched for, or sent to a worker.

    `vectors` are of query and positive; without any, the rows are passages of the corpus, and each is a query itself.
    """

    rows: Places
    corpus: Corpus
    vectors: Vectors | None
    answers: Places
    texts: Hashes
    depth: int

    def read(self) -> Asked:
        """Read the queries' vectors."""
        if self.vectors is None:
            assert self.corpus.vectors is not None
            queries = positives = self.corpus.vectors.gather(self.rows)
        else:
            queries, positives = own_vectors(self.corpus, self.vectors[self.rows], self.answers[self.rows])
        copies = self.corpus.index.copies_of(self.texts[self.rows])
        return Asked(queries, (queries * positives).sum(1), copies, self.depth)

    def __reduce__(self) -> tuple[Any, ...]:
        asked = self.read()
        return Asked, (asked.queries, asked.own, asked.copies, asked.depth)

    def __str__(self) -> str:
        return f"queries {self.rows[0]:,} to {self.rows[-1]:,}"


def search_vectors(corpus: Corpus, blocks: Sequence[QueryBlock], workers: Workers) -> Iterator[tuple[Places, Hits]]:
    """Yield the rows of each block of queries, and what they found, in any order."""
    assert corpus.vectors is not None and corpus.embeddings is not None
    if workers.num_workers > 1 or workers.num_gpus:
        from speed_ray.on_ray import map_tasks  # brings Ray, which one process does without

        make = partial(_BlockSearch, corpus.embeddings.store.uri, corpus.embeddings.name, bool(workers.num_gpus))
        for index, hits in map_tasks.map_tasks("curate", blocks, make, workers):
            yield blocks[index].rows, hits
    else:
        search = VectorSearch(corpus.vectors, "cpu")
        for block in blocks:
            yield block.rows, _search(search, block)


class _BlockSearch:
    """Search in a worker."""

    def __init__(self, uri: str, embeddings: str, has_gpu: bool) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="speed_ray-curate-")
        vectors = _read_vectors(Run(uri).artifact(embeddings), Path(self._folder.name))
        self._search = VectorSearch(vectors, "cuda" if has_gpu else "cpu")

    def __call__(self, block: QueryBlock) -> Hits:
        return _search(self._search, block)


def _search(search: VectorSearch, block: QueryBlock) -> Hits:
    asked = block.read()
    return search.search(asked.queries, asked.own, asked.copies, asked.depth)


def _read_vectors(embeddings: Artifact, folder: Path) -> VectorFile:
    vectors: VectorFile | None = None
    for file in embeddings.record_files().values():
        block: Vectors = embeddings.read(file.path)["vector"].combine_chunks().flatten().to_numpy()
        block = block.reshape(file.rows, -1)
        vectors = vectors or VectorFile(folder / "passage-vectors", block.shape[1])
        vectors.append(block)
    assert vectors is not None, "a corpus without a passage is refused before"
    return vectors
