"""Count how many examples of a task get each label: one that no other example gets is hardly a class of its task."""

from collections import Counter
from collections.abc import Iterable

from speed_ray import kinds
from speed_ray.records import Row
from speed_ray.text.rules import is_plain

FEWEST_OTHERS = 10  # examples of a task, of which fewer need not share a label


class LabelCounts:
    """Tells of an example how many others of its task have its label."""

    def __init__(self, rows: Iterable[Row]) -> None:
        """Count the labels of some examples' tasks; a row needs `parent_id`, `kind` and `positive`."""
        self._labels: Counter[tuple[str, str]] = Counter()
        self._tasks: Counter[str] = Counter()
        for row in rows:
            if kinds.load_kind(row["kind"]).positive_is_label:
                self._labels[_key(row)] += 1
                self._tasks[row["parent_id"]] += 1

    def others(self, row: Row) -> int | None:
        """Return how many others have its label; None where it has none, or the task too few examples."""
        task, label = _key(row)
        found = self._labels[task, label]
        return found - 1 if found and self._tasks[task] > FEWEST_OTHERS else None


def _key(row: Row) -> tuple[str, str]:
    return row["parent_id"], is_plain(row["positive"])
