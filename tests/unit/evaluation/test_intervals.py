"""The interval of a gain: paired by query, so that a difference that every query shows is sure."""

import numpy as np

from speed_ray.evaluation.intervals import paired_gain

HARD_AND_EASY = {f"q{number}": number / 100 for number in range(100)}


def test_a_small_gain_of_every_query_is_sure_though_queries_differ_far_more():
    gain = paired_gain(HARD_AND_EASY, {query: score + 0.01 for query, score in HARD_AND_EASY.items()})
    assert 0.009 < gain.low <= gain.mean <= gain.high < 0.011


def test_the_interval_is_as_wide_as_the_normal_one():
    noise = np.random.default_rng(3).normal(0.02, 0.1, 400)
    gain = paired_gain(dict.fromkeys(map(str, range(400)), 0.0), dict(zip(map(str, range(400)), noise, strict=True)))
    half = 1.96 * noise.std() / 20
    np.testing.assert_allclose([gain.low, gain.high], [noise.mean() - half, noise.mean() + half], atol=0.002)


def test_two_models_that_rank_alike_gain_nothing():
    assert str(paired_gain(HARD_AND_EASY, HARD_AND_EASY)) == "+0.0000 [+0.0000, +0.0000]"


def test_one_query_has_no_interval():
    assert paired_gain({"q": 0.5}, {"q": 0.7}) is None
