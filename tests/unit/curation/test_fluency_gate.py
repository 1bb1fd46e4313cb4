"""A text is held against as many tokens of people's texts: what is usual for four tokens is not for forty."""

import random

import pytest

from speed_ray.curation.fluency_gate import FluencyScale

RNG = random.Random(0)
REFERENCES = [[RNG.gauss(-8 if place < 4 else -2, 1) for place in range(40)] for _ in range(400)]


@pytest.fixture(scope="module")
def scale() -> FluencyScale:
    return FluencyScale(REFERENCES)


@pytest.mark.parametrize(("tokens", "logprob"), [(4, -8), (8, -5), (40, -2.6)])
def test_what_is_usual_at_its_length_lies_in_the_middle(scale, tokens, logprob):
    assert scale.share_below(tokens, logprob) == pytest.approx(0.5, abs=0.08)


def test_the_same_mean_is_unlikely_in_a_longer_text(scale):
    assert scale.share_below(4, -7) > 0.9 and scale.share_below(40, -7) == 0


def test_shares_are_those_of_the_references_themselves(scale):
    shares = [scale.share_below(40, sum(each) / 40) for each in REFERENCES]
    assert sorted(shares) == pytest.approx([number / 400 for number in range(400)], abs=1 / 400)


def test_a_text_longer_than_the_references_is_told_by_their_last_tokens(scale):
    assert scale.share_below(4000, -2.6) == scale.share_below(40, -2.6)


def test_a_length_that_few_references_have_is_not_held_against_them():
    uneven = FluencyScale([each[: 40 if number < 60 else 10] for number, each in enumerate(REFERENCES)])
    assert uneven.share_below(40, -4) == uneven.share_below(10, -4) == FluencyScale(REFERENCES).share_below(10, -4)


def test_a_text_of_two_tokens_and_a_corpus_of_such_tell_nothing(scale):
    assert scale.share_below(2, -20) is None
    assert FluencyScale([[-1.0, -2.0]] * 50).share_below(10, -20) is None


def test_a_log_probability_of_minus_infinity_is_less_likely_than_all(scale):
    assert scale.share_below(10, float("-inf")) == 0
