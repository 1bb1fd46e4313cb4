"""Hold a query's scores against those of many other texts: how far it lies above them says more than a bare score.

The other texts are the passages of the corpus, where there is one, else a sample of the examples' own. Both judges
look at the same: mean and standard deviation of a query's cosines with all of them follow from the mean and the second
moment of their vectors, so that no text is looked at one by one; BM25 scores them all from its index.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speed_ray.curation.exact_search import BLOCK, VectorFile
from speed_ray.curation.passage_index import NOWHERE, PassageIndex
from speed_ray.curation.query_blocks import Corpus
from speed_ray.curation.reference_model import Numbers, ReferenceModel
from speed_ray.curation.scan import hash_texts
from speed_ray.records import Row
from speed_ray.text.bm25 import WordScorer
from speed_ray.text.rules import is_plain
from speed_ray.text.token_hashes import Hashes, Places

Moments = np.ndarray[Any, np.dtype[np.float64]]
LEAST_DEVIATION = 1e-6  # of cosines, below which they are one number that was rounded


class Background:
    """Index the other texts for words, and for vectors where there is a reference."""

    def __init__(self, texts: Iterable[str], hashes: Hashes, vectors: VectorFile | None) -> None:
        self.words = WordScorer(texts)
        self.vectors = vectors
        self.index: PassageIndex | None = None
        self._hashes = hashes
        self._moments = None if vectors is None else _moments(vectors)

    @classmethod
    def of_corpus(cls, corpus: Corpus) -> "Background":
        """Take all passages of a corpus."""
        index = corpus.index
        made = cls(map(index.text, range(len(index))), index.texts, corpus.vectors)
        made.index = index
        return made

    @classmethod
    def of_texts(cls, texts: Sequence[str], reference: ReferenceModel | None, folder: Path) -> "Background":
        """Take some texts; `folder` takes the file of their vectors."""
        vectors = None
        if reference is not None:
            embedded = reference.embed_documents(list(texts))
            vectors = VectorFile(folder / "background", embedded.shape[1])
            vectors.append(embedded.astype(np.float16))
        return cls(texts, hash_texts([is_plain(text) for text in texts]), vectors)

    def __len__(self) -> int:
        return len(self._hashes)

    def cosine_spread(self, queries: Numbers) -> tuple[Moments, Moments]:
        """Return mean and standard deviation of each query's cosines with all texts, (queries,) each."""
        assert self._moments is not None
        asked, (mean, second) = queries.astype(np.float64), self._moments
        means, squares = asked @ mean, ((asked @ second) * asked).sum(1)
        deviations = np.sqrt(np.maximum(squares - means**2, 0))
        return means, np.where(deviations < LEAST_DEVIATION, 0.0, deviations)

    def cosines(self, queries: Numbers) -> Numbers:
        """Return the cosines of queries (queries, width) with all texts -> (queries, texts)."""
        assert self.vectors is not None
        begins = range(0, self.vectors.rows, BLOCK)
        return np.concatenate([queries @ self.vectors.block(begin, BLOCK).astype(np.float32).T for begin in begins], 1)

    def copies_of(self, rows: Sequence[Row]) -> list[Places]:
        """Find the texts that say what each example's positive says -> their places, by example."""
        wanted = hash_texts([is_plain(row["positive"]) for row in rows])
        if self.index is not None:  # whose texts are without titles
            answers = self.index.answers_of(rows, self.index.parents_of(rows))
            wanted = np.where(answers == NOWHERE, wanted, self._hashes[answers])
        return [np.flatnonzero(self._hashes == each) for each in wanted]


def _moments(vectors: VectorFile) -> tuple[Moments, Moments]:
    """Compute the mean (width,) and the mean outer product (width, width) of all vectors."""
    total, squares = np.zeros(vectors.width), np.zeros((vectors.width, vectors.width))
    for begin in range(0, vectors.rows, BLOCK):
        block = vectors.block(begin, BLOCK).astype(np.float32)
        total += block.sum(0, dtype=np.float64)
        squares += block.T @ block
    return total / vectors.rows, squares / vectors.rows
