"""The mixture of reference and BM25: their z-scores, weighed by what finds held-out queries' positives."""

import math

import numpy as np
import pytest

from speed_ray.curation import mixture
from speed_ray.curation.mixture import WEIGHTS, fit_weight, gains_by_weight, mixed_scores

JUDGED = [
    {"judge": "bm25", "scores": [4.0, 0.0], "mean": 1.0, "deviation": 2.0},
    {"judge": "reference", "scores": [0.5, 0.7], "mean": 0.1, "deviation": 0.2},
]


def test_scores_are_added_in_their_standard_deviations() -> None:
    assert mixed_scores(JUDGED, 0.5) == pytest.approx([2 + 0.75, 3 - 0.25])


def test_a_judge_without_deviation_says_nothing() -> None:
    silent = {**JUDGED[0], "deviation": 0.0}
    assert mixed_scores([silent, JUDGED[1]], 0.5) == pytest.approx([2, 3])


def test_a_gain_is_by_the_rank_among_texts_that_are_no_copies() -> None:
    cosines, words = np.array([0.9, 0.6, 0.5, 0.0]), np.zeros(4)
    alone = [{**JUDGED[0], "scores": [0.0], "mean": 0.0}, {**JUDGED[1], "scores": [0.5]}]
    assert gains_by_weight(alone, cosines, words, [2]) == pytest.approx([1 / math.log2(4)] * len(WEIGHTS))
    assert gains_by_weight(alone, cosines, words, [0, 1, 2]) == [1.0] * len(WEIGHTS)
    assert gains_by_weight(alone, np.full(20, 0.9), np.zeros(20), []) == [0.0] * len(WEIGHTS)


def test_the_weight_that_finds_best_is_taken() -> None:
    gains = [[float(weight == 0.8) for weight in WEIGHTS], [0.5] * len(WEIGHTS)] * mixture.FEWEST_QUERIES
    fitted = fit_weight(gains)
    assert (fitted.bm25, fitted.queries) == (0.8, 2 * mixture.FEWEST_QUERIES)
    assert fitted.ndcg_at_10["0.8"] == 0.75 and fitted.ndcg_at_10["0.3"] == 0.25


def test_of_equal_weights_the_usual_one_is_taken() -> None:
    assert fit_weight([[1.0] * len(WEIGHTS)] * mixture.FEWEST_QUERIES).bm25 == mixture.USUAL_WEIGHT


def test_few_queries_tell_nothing() -> None:
    gains = [[float(weight == 0.8) for weight in WEIGHTS]] * (mixture.FEWEST_QUERIES - 1)
    assert fit_weight(gains) == (mixture.USUAL_WEIGHT, mixture.FEWEST_QUERIES - 1, {})
