"""Whether a judge looks at the place: candidates are shown in an order drawn by lot, so no place should win.

The candidates of a list come from one model with one prompt, and the lot decides who stands where. By chance each of n
places then holds the best of a list in 1/n of the verdicts, however good or bad the judge is.
"""

import math
from dataclasses import dataclass

from speed_ray.storage.shards import RECORDS, Artifact

BIASED = 0.2  # of 1 that a place has beyond chance, and
CERTAIN = 4.0  # standard deviations beyond it: once in 30,000 by luck


@dataclass(frozen=True)
class Places:
    """How often each place, from 1, was named the best, and how often it would have been by chance."""

    best: tuple[int, ...]
    chance: tuple[float, ...]
    deviations: tuple[float, ...]  # standard deviations of chance

    @property
    def shares(self) -> list[float]:
        """The share of the verdicts that found their best at each place."""
        return [count / sum(self.best) for count in self.best]

    @property
    def favourite(self) -> int:
        """The place, from 1, that is furthest above chance."""
        return max(range(len(self.best)), key=self._excess) + 1

    @property
    def bias(self) -> float:
        """What the favourite has beyond chance: 0 is nothing, 1 is every verdict."""
        return max(0.0, self._excess(self.favourite - 1))

    @property
    def is_biased(self) -> bool:
        """Whether the favourite is one by more than luck, and by enough to spoil the verdicts."""
        place = self.favourite - 1
        return self.bias > BIASED and self.best[place] - self.chance[place] > CERTAIN * self.deviations[place]

    def _excess(self, place: int) -> float:
        room = sum(self.best) - self.chance[place]
        return (self.best[place] - self.chance[place]) / room if room else 0.0


def count_positions(verdicts: Artifact) -> Places | None:
    """Count the committed verdicts of a judge. None before there is one."""
    shown: list[int] = []
    best: list[int] = []
    for commit in verdicts.commits():
        if RECORDS in commit.files:
            table = verdicts.read(commit.files[RECORDS].path)
            shown += [len(order) for order in table["order"].to_pylist()]
            best += table["best"].to_pylist()
    return counted(shown, best) if best else None


def counted(shown: list[int], best: list[int]) -> Places:
    """Count verdicts: of how many examples each was, and the place, from 1, of its best."""
    most = max(shown)
    chances = [[1 / n for n in shown if n > place] for place in range(most)]
    return Places(
        best=tuple(best.count(place + 1) for place in range(most)),
        chance=tuple(sum(each) for each in chances),
        deviations=tuple(math.sqrt(sum(p * (1 - p) for p in each)) for each in chances),
    )
