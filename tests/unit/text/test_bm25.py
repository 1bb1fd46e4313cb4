"""Texts that are in no index are scored for a query as those that are."""

import pytest

from speed_ray.text.bm25 import WordScorer

TEXTS = ["a red lamp", "red red lamp lamp hums", "dogs sleep", "the lamp of the house hums", ""]


@pytest.mark.parametrize("query", ["red lamp", "lamp lamp", "hums the", "unheard of", "?!"])
def test_a_text_has_the_score_that_it_has_in_the_index(query):
    scorer = WordScorer(TEXTS)
    assert scorer.of_texts(query, TEXTS) == pytest.approx(scorer.of_indexed(query).tolist(), abs=1e-5)


def test_a_word_that_no_indexed_text_has_weighs_most():
    new, rare, common = WordScorer(TEXTS).of_texts("quartz dogs lamp", ["quartz", "dogs", "lamp"])
    assert new > rare > common > 0


def test_texts_without_a_word_score_nothing():
    assert WordScorer(["", "?!"]).of_texts("lamp", ["", "!"]) == [0, 0]
