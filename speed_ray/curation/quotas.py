"""How many of what: a part of the tasks is held out, and of the rest no kind, language or label has too many."""

from collections import Counter

from speed_ray.recipes.schema import Curate
from speed_ray.records import Row, content_id
from speed_ray.text.rules import Broken


def held_out(task: str, share: float) -> bool:
    """Whether a task is held out with all its examples: by its id alone, whatever other tasks there are."""
    return int(content_id(task, "held_out")[:8], 16) < share * 2**32


class Quotas:
    """What was let through so far. Rows come in their order; those that are held out count for nothing.

    `labels` says how many examples each common label may have.
    """

    def __init__(self, settings: Curate, labels: dict[int, int]) -> None:
        self.settings = settings
        self.labels = labels
        self.limited = bool(labels or settings.kinds or settings.languages or settings.examples)
        self._taken: Counter[object] = Counter()

    def refusal(self, row: Row, label: int) -> Broken:
        """Take one more row, or say why not."""
        if not self.limited:
            return None
        settings, kind, language = self.settings, row["kind"], row["language"]
        limits = [
            (("label", label), self.labels.get(label), "common_label", f"label {row['positive']!r}"),
            (("kind", kind), settings.kinds.get(kind), "kind_quota", f"kind {kind}"),
            (("language", language), settings.languages.get(language), "language_quota", language),
            ("all", settings.examples, "surplus", "all kinds together"),
        ]
        for key, limit, reason, what in limits:
            if limit is not None and self._taken[key] >= limit:
                return reason, f"{limit} examples are kept of {what}"
        for key, limit, _, _ in limits:
            self._taken[key] += limit is not None
        return None
