"""Search by words: what BM25 scores highest, of what shares a word with the query."""

import numpy as np
import pytest

from speed_ray.curation.exact_search import Hits
from speed_ray.curation.word_search import WordSearch
from speed_ray.text import bm25

NO_COPIES = np.empty((0, 2), np.int64)
TEXTS = ["a red lamp", "a red lamp, red", "the blue sea", "nothing of it", "red sea and blue lamp"]


def by_words(query: str, own: int, copies: np.ndarray = NO_COPIES, depth: int = 3) -> Hits:
    return WordSearch(iter(TEXTS)).search([query], np.array([own]), copies, depth)


def test_words_find_what_bm25_ranks_first() -> None:
    scores = bm25.index_texts(TEXTS).get_scores(["red", "lamp"])
    found = by_words("red lamp", 4)
    assert found.nearest[0].tolist() == np.argsort(-scores, kind="stable")[:3].tolist()
    assert found.ranks[0] == 1 + (scores > scores[4]).sum()


def test_what_shares_no_word_is_not_found_by_words() -> None:
    found = by_words("blue", 0)
    assert set(found.nearest[0].tolist()) == {2, 4, -1} and found.ranks[0] == len(TEXTS)


@pytest.mark.parametrize("query", ["", "?", "unheard words"])
def test_a_query_without_a_known_word_finds_nothing_by_words(query: str) -> None:
    found = by_words(query, 0)
    assert (found.nearest == -1).all() and found.ranks[0] == len(TEXTS)


def test_a_copy_does_not_push_a_passage_down_by_words() -> None:
    ranks = [by_words("red", 0, copies).ranks[0] for copies in (NO_COPIES, np.array([[0, 0], [0, 1]]))]
    assert ranks == [2, 1]
