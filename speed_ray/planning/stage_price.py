"""Work out what one stage takes, from its rows by kind and from what a few of them took."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance

from speed_ray.planning.row_facts import RowFact

NORMAL_95 = 1.96


@dataclass(frozen=True)
class Interval:
    """Holds an expected number and the bounds between which it lies in 95 of 100 cases."""

    expected: float
    low: float
    high: float

    def times(self, factor: float) -> "Interval":
        """Return the interval of a multiple."""
        return Interval(self.expected * factor, self.low * factor, self.high * factor)

    def plus(self, other: "Interval") -> "Interval":
        """Return the interval of a sum; bounds are added, as if both erred the same way."""
        return Interval(self.expected + other.expected, self.low + other.low, self.high + other.high)


@dataclass(frozen=True)
class StageTokens:
    """Holds what a stage asks its model for."""

    rows: float
    calls: float
    retries: float
    prompt_tokens: float
    output_tokens: Interval
    records: Mapping[str, float]  # by kind, as later stages find them
    seconds_a_call: float


def tokens_of(
    rows: Mapping[str, float],
    facts: Sequence[RowFact],
    prompts: Mapping[str, float],
    guessed: bool,
    surplus: Mapping[str, float] | None = None,
) -> StageTokens:
    """Return what rows of these kinds take, if they take what `facts` did.

    `surplus` are rows that a sample has answered and the run does not have: they are paid for as well.
    `prompts` has the mean tokens of one prompt by kind, where these could be counted; else those of the facts count.
    The interval is of a mean of a sample and of the rows themselves. Where replies are guessed it says what is known
    of models in general: they may write half as much or twice as much.
    """
    calls = asked = prompt_tokens = output = spread = 0.0
    records: dict[str, float] = {}
    for kind, planned in rows.items():
        number = planned + (surplus or {}).get(kind, 0.0)
        of_kind = [fact for fact in facts if fact.kind == kind] or list(facts)
        kind_calls = number * fmean(fact.calls for fact in of_kind)
        calls += kind_calls
        asked += number * fmean(fact.calls > 0 for fact in of_kind)
        prompt_tokens += kind_calls * prompts[kind] if kind in prompts else number * _mean(of_kind, "prompt_tokens")
        output += number * _mean(of_kind, "output_tokens")
        between = variance(fact.output_tokens for fact in of_kind) if len(of_kind) > 1 else 0.0
        spread += between * (number * number / len(of_kind) + number)
        records[kind] = planned * _mean(of_kind, "records")
    margin = NORMAL_95 * math.sqrt(spread)
    interval = (
        Interval(output, output / 2, output * 2) if guessed else Interval(output, output - margin, output + margin)
    )
    all_calls = sum(fact.calls for fact in facts)
    seconds = sum(fact.seconds for fact in facts) / all_calls if all_calls else 0.0
    return StageTokens(
        sum(rows.values()), calls, max(0.0, calls - asked), prompt_tokens, _not_negative(interval), records, seconds
    )


def _mean(facts: Sequence[RowFact], name: str) -> float:
    return fmean(getattr(fact, name) for fact in facts)


def _not_negative(interval: Interval) -> Interval:
    return Interval(interval.expected, max(0.0, interval.low), interval.high)
