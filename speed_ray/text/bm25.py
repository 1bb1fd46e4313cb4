"""BM25: how far words alone lead.

Lucene's formula with k1 = 1.5 and b = 0.75, as mteb's own baseline has it. Words are lowercased runs of two or more
letters and digits; none is left out and none is cut to its stem: a list of stop words is one language's, and what is
said everywhere weighs next to nothing anyhow. Where words have no spaces between them (Chinese) BM25 finds little.
"""

from collections.abc import Sequence

from bm25s import BM25

from speed_ray.text.rules import word_runs


def index_texts(texts: Sequence[str]) -> BM25:
    """Index texts, so that they can be ranked for the `bm25_words` of a query."""
    index = BM25(k1=1.5, b=0.75, method="lucene")
    index.index([bm25_words(text) for text in texts], show_progress=False)
    return index


def bm25_words(text: str) -> list[str]:
    """Split a text into the words that BM25 counts."""
    return [word for word in word_runs(text.lower()) if len(word) > 1]
