"""Read a model's answer to a question of yes or no as log-odds, from its likeliest first tokens."""

import math
import re
from collections.abc import Sequence

from speed_ray.records import Rejected, TokenLogprob

_NO_LETTER = re.compile(r"[\W\d_]+")


def log_odds(likely: Sequence[TokenLogprob]) -> float:
    """Return the log-probability of yes less that of no, in nats, over all tokens that are the word.

    Of a word that is not among the likeliest tokens the least likely one of these stands for it: it is at most as
    likely. Raises Rejected where neither word is among them, or there are none.
    """
    if not likely:
        raise Rejected("no_logprobs", "the reply came without the log-probabilities of its first token")
    least = min(each["logprob"] for each in likely)
    yes, no = (_logprob_of(word, likely) for word in ("yes", "no"))
    if yes is None and no is None:
        begins = max(likely, key=lambda each: each["logprob"])["token"]
        raise Rejected(
            "no_yes_or_no",
            f"neither is among its {len(likely)} likeliest first tokens, of which {begins!r} is the first",
        )
    return (least if yes is None else yes) - (least if no is None else no)


def _logprob_of(word: str, likely: Sequence[TokenLogprob]) -> float | None:
    same = [each["logprob"] for each in likely if _NO_LETTER.sub("", each["token"]).casefold() == word]
    most = max(same, default=0.0)
    return most + math.log(sum(math.exp(each - most) for each in same)) if same else None
