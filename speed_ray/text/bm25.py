"""BM25: how far words alone lead.

Lucene's formula with k1 = 1.5 and b = 0.75, as mteb's own baseline has it. Words are those of words.py, of two or more
characters, or of one where a script puts no spaces between words: 猫 is a cat. None is left out and none is cut to its
stem: a list of stop words is one language's, and what is said everywhere weighs next to nothing anyhow.
"""

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from bm25s import BM25

from speed_ray.text.words import is_unspaced, split_words

K1, B = 1.5, 0.75

Scores = np.ndarray[Any, np.dtype[np.float32]]


def index_texts(texts: Iterable[str]) -> BM25:
    """Index texts, so that they can be ranked for the `bm25_words` of a query. Words are held as four bytes each."""
    return _index(*_number_words(texts))


def bm25_words(text: str) -> list[str]:
    """Split a text into the words that BM25 counts."""
    return [word for word in split_words(text) if len(word) > 1 or is_unspaced(word)]


class WordScorer:
    """Score any text as an answer to a query, its words weighed as among the texts of an index."""

    def __init__(self, texts: Iterable[str]) -> None:
        words, numbers = _number_words(texts)
        self._index = _index(words, numbers)
        self._texts = len(words)
        self._mean_length = sum(map(len, words)) / max(1, len(words)) or 1.0

    def of_indexed(self, query: str) -> Scores:
        """Score all texts of the index. -> fp32 (texts,)"""
        words = bm25_words(query)
        found: Scores = self._index.get_scores(words) if words else np.zeros(self._texts, np.float32)
        return found

    def of_texts(self, query: str, texts: Sequence[str]) -> list[float]:
        """Score texts that need not be in the index: those that are have the same score there."""
        asked = Counter(bm25_words(query))
        weights = {word: times * self._idf(word) for word, times in asked.items()}
        return [self._of_words(weights, bm25_words(text)) for text in texts]

    def _of_words(self, weights: dict[str, float], words: Sequence[str]) -> float:
        counts = Counter(words)
        half = K1 * (1 - B + B * len(words) / self._mean_length)  # the count that is worth half a word's weight
        return sum(weight * counts[word] / (counts[word] + half) for word, weight in weights.items())

    def _idf(self, word: str) -> float:
        ends, number = self._index.scores["indptr"], self._index.vocab_dict.get(word)
        within = 0 if number is None else int(ends[number + 1] - ends[number])
        return math.log(1 + (self._texts - within + 0.5) / (within + 0.5))


def _number_words(texts: Iterable[str]) -> tuple[list["array[int]"], dict[str, int]]:
    """Number the different words of some texts -> the numbers of each text's words, and each word's number."""
    numbers: dict[str, int] = {}
    words = [array("i", [numbers.setdefault(word, len(numbers)) for word in bm25_words(text)]) for text in texts]
    return words, numbers


def _index(words: list["array[int]"], numbers: dict[str, int]) -> BM25:
    index = BM25(k1=K1, b=B, method="lucene")
    # bm25s cannot index texts of which none has a word; no query has the empty one.
    index.index((words, numbers) if numbers else [[""]] * len(words), show_progress=False)
    return index
