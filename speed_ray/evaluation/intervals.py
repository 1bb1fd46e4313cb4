"""Compute how sure a gain is: the interval of the mean difference of two models' scores, query by query."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy.stats import bootstrap

RESAMPLES, BATCH, SEED = 2_000, 50, 0  # draws of the queries, and so many held at once
FEWEST = 2  # queries that a draw can differ in


class Gain(NamedTuple):
    """Hold a mean difference and its 95% interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"


def paired_gain(before: Mapping[str, float], after: Mapping[str, float]) -> Gain | None:
    """Compute the gain over the queries that both have a score for, by a paired bootstrap; None for fewer than two."""
    queries = sorted(before.keys() & after.keys())
    if len(queries) < FEWEST:
        return None
    gains = np.array([after[query] - before[query] for query in queries])
    found = bootstrap(
        (gains,), np.mean, n_resamples=RESAMPLES, batch=BATCH, method="percentile", rng=np.random.default_rng(SEED)
    ).confidence_interval
    return Gain(float(gains.mean()), float(found.low), float(found.high))
