"""BM25: how far words alone lead. An embedder's retrieval is read beside this line.

Lucene's formula with k1 = 1.5 and b = 0.75, as mteb's own baseline has it. Words are lowercased runs of two or more
letters and digits; none is left out and none is cut to its stem: a list of stop words is one language's, and what is
said everywhere weighs next to nothing anyhow. Where words have no spaces between them (Chinese) the line says little.
"""

import re

import numpy as np
from bm25s import BM25

from speed_ray.evaluation.loaders import Retrieval
from speed_ray.evaluation.metrics import DEEP, Ranking, top_k

WORD = re.compile(r"\w\w+")


def bm25_ranking(retrieval: Retrieval) -> Ranking:
    """Find the documents that share words with each query; of two with one score the first in the corpus is first."""
    names = np.array(list(retrieval.documents))
    index = BM25(k1=1.5, b=0.75, method="lucene")
    index.index([bm25_words(text) for text in retrieval.documents.values()], show_progress=False)
    found = {}
    for query, text in retrieval.queries.items():
        asked = bm25_words(text)
        scores = index.get_scores(asked) if asked else np.zeros(len(names), np.float32)
        shared = [place for place in top_k(scores, DEEP + 1) if scores[place] > 0 and names[place] != query]
        found[query] = {str(names[place]): float(scores[place]) for place in shared[:DEEP]}
    return Ranking(found)


def bm25_words(text: str) -> list[str]:
    """Split a text to what BM25 counts."""
    return WORD.findall(text.lower())
