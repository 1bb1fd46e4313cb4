"""Measure a judge's position bias: candidates are shown in a random order, so no position should win more often.

The candidates of a list come from one model with one prompt, and chance decides who stands where. By chance each of n
positions then holds the best of a list in 1/n of the verdicts, however good or bad the judge is.
"""

import math
from dataclasses import dataclass

from speed_ray.storage.shards import RECORDS, Artifact

BIASED = 0.2  # of 1 that a position has beyond chance, and
CERTAIN = 4.0  # standard deviations beyond it: once in 30,000 by luck


@dataclass(frozen=True)
class PositionCounts:
    """Count how often each position was named the best, and how often it would have been by chance."""

    best: tuple[int, ...]  # verdicts; of position 1 first
    chance: tuple[float, ...]  # verdicts expected by chance
    deviations: tuple[float, ...]  # standard deviations of `chance`

    @property
    def shares(self) -> list[float]:
        """Divide each position's count by the number of verdicts."""
        return [count / sum(self.best) for count in self.best]

    @property
    def favourite(self) -> int:
        """Find the position, from 1, that is furthest above chance."""
        return max(range(len(self.best)), key=self._excess) + 1

    @property
    def bias(self) -> float:
        """Return how far the most often chosen position exceeds its chance share: 0 not at all, 1 always chosen."""
        return max(0.0, self._excess(self.favourite - 1))

    @property
    def is_biased(self) -> bool:
        """Test whether the excess is more than luck, and large enough to spoil the verdicts."""
        index = self.favourite - 1
        return self.bias > BIASED and self.best[index] - self.chance[index] > CERTAIN * self.deviations[index]

    def _excess(self, index: int) -> float:
        most = sum(self.best) - self.chance[index]
        return (self.best[index] - self.chance[index]) / most if most else 0.0


def count_positions(verdicts: Artifact) -> PositionCounts | None:
    """Count the committed verdicts of a judge by position. None before there is one."""
    shown: list[int] = []
    best: list[int] = []
    for commit in verdicts.commits():
        if RECORDS in commit.files:
            table = verdicts.read(commit.files[RECORDS].path)
            shown += [len(order) for order in table["order"].to_pylist()]
            best += table["best"].to_pylist()
    return count_verdicts(shown, best) if best else None


def count_verdicts(shown: list[int], best: list[int]) -> PositionCounts:
    """Count verdicts by position: `shown` examples each, and the position, from 1, of the `best` of them."""
    positions = range(max(shown))
    chances = [[1 / n for n in shown if n > index] for index in positions]
    return PositionCounts(
        best=tuple(best.count(index + 1) for index in positions),
        chance=tuple(sum(each) for each in chances),
        deviations=tuple(math.sqrt(sum(p * (1 - p) for p in each)) for each in chances),
    )
