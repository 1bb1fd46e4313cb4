"""BM25: how far words alone lead.

Lucene's formula with k1 = 1.5 and b = 0.75, as mteb's own baseline has it. Words are those of words.py, of two or more
characters, or of one where a script puts no spaces between words: 猫 is a cat. None is left out and none is cut to its
stem: a list of stop words is one language's, and what is said everywhere weighs next to nothing anyhow.
"""

from array import array
from collections.abc import Iterable

from bm25s import BM25

from speed_ray.text.words import is_unspaced, split_words


def index_texts(texts: Iterable[str]) -> BM25:
    """Index texts, so that they can be ranked for the `bm25_words` of a query. Words are held as four bytes each."""
    index = BM25(k1=1.5, b=0.75, method="lucene")
    numbers: dict[str, int] = {}
    words = [array("i", [numbers.setdefault(word, len(numbers)) for word in bm25_words(text)]) for text in texts]
    # bm25s cannot index texts of which none has a word; no query has the empty one.
    index.index((words, numbers) if numbers else [[""]] * len(words), show_progress=False)
    return index


def bm25_words(text: str) -> list[str]:
    """Split a text into the words that BM25 counts."""
    return [word for word in split_words(text) if len(word) > 1 or is_unspaced(word)]
