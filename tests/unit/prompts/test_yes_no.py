"""An answer of yes or no is read as log-odds from the likeliest first tokens, or the row is rejected."""

import math

import pytest

from speed_ray.prompts.yes_no import log_odds
from speed_ray.records import Rejected


def likely(**tokens: float) -> list[dict]:
    return [{"token": token.replace("_", " "), "logprob": math.log(share)} for token, share in tokens.items()]


@pytest.mark.parametrize(
    ("tokens", "odds"),
    [
        (likely(Yes=0.6, No=0.2), 3.0),
        (likely(Yes=0.3, yes=0.2, _YES=0.1, No=0.1, no=0.1, Yesterday=0.2), 3.0),
        ([{"token": "**Yes", "logprob": math.log(0.1)}, {"token": "no.", "logprob": math.log(0.4)}], 0.25),
        (likely(Yes=0.8, Maybe=0.1, Well=0.05), 16.0),  # no is at most as likely as the last
        (likely(no=0.9, The=0.01), 1 / 90),
    ],
)
def test_all_tokens_that_are_a_word_count_for_it(tokens, odds):
    assert log_odds(tokens) == pytest.approx(math.log(odds))


@pytest.mark.parametrize(
    ("tokens", "reason"), [([], "no_logprobs"), (likely(The=0.5, Yesterday=0.1, None_=0.1), "no_yes_or_no")]
)
def test_a_reply_that_says_neither_is_rejected(tokens, reason):
    with pytest.raises(Rejected) as rejected:
        log_odds(tokens)
    assert rejected.value.reason == reason


def test_a_token_of_no_probability_is_none():
    tokens = [{"token": "Yes", "logprob": -0.1}, {"token": "No", "logprob": -9999.0}]
    assert log_odds(tokens) == pytest.approx(9998.9)
