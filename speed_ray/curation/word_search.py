"""Search all passages of a corpus by BM25. A passage that shares no word with a query is not found by it.

Its index is in memory, some 8 bytes for each different word of a passage, and half as much again while it is made.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from speed_ray.curation.exact_search import Hits
from speed_ray.curation.near_duplicates import Pairs
from speed_ray.curation.passage_index import NOWHERE
from speed_ray.text import bm25
from speed_ray.text.token_hashes import Places


class WordSearch:
    """Index texts in memory, and search them."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._index = bm25.index_texts(texts)
        self._passages: int = self._index.scores["num_docs"]

    def search(self, queries: Sequence[str], own: Places, copies: Pairs, depth: int) -> Hits:
        """Rank all passages for some queries; `own` is each one's, (queries,), and `copies` as for vectors."""
        ranks = np.full(len(queries), self._passages)
        nearest = np.full((len(queries), depth), NOWHERE, np.int64)
        same = np.split(copies[:, 1], np.searchsorted(copies[:, 0], np.arange(1, len(queries))))
        for row, query in enumerate(queries):
            words = bm25.bm25_words(query)
            if not words:
                continue
            scores = self._index.get_scores(words)
            ours = scores[own[row]]
            above = int((scores > ours).sum() - (scores[same[row]] > ours).sum())
            if ours > 0:
                ranks[row] = above + 1
            best = np.flatnonzero(scores)
            if len(best) > depth:
                best = best[np.argpartition(scores[best], -depth)[-depth:]]
            best = best[np.lexsort((best, -scores[best]))]
            nearest[row, : len(best)] = best
        return Hits(ranks, nearest)
