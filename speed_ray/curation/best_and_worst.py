"""Name the best and the worst of several queries about one passage by what can be counted: the same each time.

A query's worth is a sum of five terms, in doublings of a rank: at rank 2 a query is worth one less than at rank 1.

    rank     -log2 of the rank at which it finds its passage, as if it were at most 1,024
    margin   of its passage above the nearest other one, in standard deviations, from -1 to 1
    near     -0.5 log2 of one more than the passages that it fits nearly as well: what is too general
    copied   -4 times the share of its word triples that stand in the passage
    length   -|log2| of its words over the median of its list: else DPO would learn to write ever longer queries

There is no preference between two that differ by less than 1, and no best where none finds its passage within 20.
"""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from speed_ray.curation.passage_ranks import Standing
from speed_ray.records import Rejected

FOUND = 20  # the rank up to which a query counts as finding its passage, as round trips have it (CADET)
FARTHEST = 1_024
CLEAR = 1.0
GENERAL, COPIED = 0.5, 4.0  # weights

Terms = dict[str, float]


class Candidate(NamedTuple):
    """Hold what is counted of a query."""

    standing: Standing
    copied: float  # share of its word triples that stand in its passage
    words: int


class Choice(NamedTuple):
    """Hold the indices of the best and the worst of some candidates, and why."""

    best: int
    worst: int
    reason: str


def choose(candidates: Sequence[Candidate]) -> Choice:
    """Name the best and the worst; of equals the first. Raises Rejected where the best is none, or not clearly."""
    usual = statistics.median(max(1, each.words) for each in candidates)
    terms = [_terms(each, usual) for each in candidates]
    worths = [sum(each.values()) for each in terms]
    best, worst = (worths.index(limit) for limit in (max(worths), min(worths)))
    if candidates[best].standing.rank > FOUND:
        ranks = ", ".join(f"{each.standing.rank:,}" for each in candidates)
        raise Rejected("none_found", f"the passage has rank {ranks} for its queries; wanted one up to {FOUND}")
    apart = worths[best] - worths[worst]
    if apart < CLEAR:
        raise Rejected("no_preference", f"the best is worth {apart:.2f} more than the worst, wanted {CLEAR:g}")
    most = max(terms[best], key=lambda name: terms[best][name] - terms[worst][name])
    said = (f"{side}: {_describe(candidates[place])}" for side, place in (("best", best), ("worst", worst)))
    return Choice(best, worst, f"{'; '.join(said)}; worth {apart:.2f} more, most of it by {most}")


def _terms(candidate: Candidate, usual: float) -> Terms:
    standing = candidate.standing
    return {
        "rank": -math.log2(min(standing.rank, FARTHEST)),
        "margin": max(-1.0, min(1.0, standing.margin)),
        "near": -GENERAL * math.log2(1 + standing.near),
        "copied": -COPIED * candidate.copied,
        "length": -abs(math.log2(max(1, candidate.words) / usual)),
    }


def _describe(candidate: Candidate) -> str:
    standing = candidate.standing
    return (
        f"rank {standing.rank:,}, margin {standing.margin:+.2f}, {standing.near:,} passages nearly as near, "
        f"{candidate.copied:.0%} copied, {candidate.words} words"
    )
