"""Compare how likely a base model finds a text with how likely it finds people's texts of as many tokens.

A mean over few tokens spreads more than one over many, and a text's first tokens are its least likely ones. So a text
of n tokens is held against the first n tokens of each reference text.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

FEWEST_TOKENS = 3  # of a text that can be told
ENOUGH = 100  # references of n tokens, or half of all, to tell a text of n; a longer one is told by the last such n

Floats = np.ndarray[Any, np.dtype[np.float64]]


class FluencyScale:
    """Tells the share of reference texts that a base model finds less likely than a text, at that text's length."""

    def __init__(self, references: Iterable[Sequence[float]]) -> None:
        """Prepare the scale from the log-probabilities of each reference text's tokens, in nats."""
        sums = [np.cumsum(each) for each in references if len(each) >= FEWEST_TOKENS]
        lengths = sorted(map(len, sums), reverse=True)
        longest = lengths[min(ENOUGH, (len(sums) + 1) // 2) - 1] if sums else 0
        self._means: list[Floats] = [
            np.sort([each[tokens - 1] / tokens for each in sums if len(each) >= tokens])
            for tokens in range(1, longest + 1)
        ]

    def share_below(self, tokens: int, logprob: float) -> float | None:
        """Return the share of references that are less likely than a text of so many tokens with this mean, in nats.

        None for a text that is too short to tell, or without a reference.
        """
        if tokens < FEWEST_TOKENS or not self._means:
            return None
        means = self._means[min(tokens, len(self._means)) - 1]
        return float(np.searchsorted(means, logprob) / len(means))
