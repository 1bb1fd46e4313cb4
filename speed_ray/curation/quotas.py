"""Split tasks into train and held out, and limit the examples of each kind, language and label."""

from collections import Counter

from speed_ray.recipes.curate_settings import Curate
from speed_ray.records import Row, is_in_share
from speed_ray.text.rules import Broken


def held_out(name: str, share: float) -> bool:
    """Select a `share` of all tasks or documents, with all that is made of them, by a hash of the id alone."""
    return is_in_share(name, "held_out", share)


class Quotas:
    """Count the rows taken so far, in their order, against the limits; held-out rows are not counted.

    `labels` limits the examples of each common label, by the label's hash.
    """

    def __init__(self, settings: Curate, labels: dict[int, int]) -> None:
        self.settings = settings
        self.labels = labels
        self.limited = bool(labels or settings.kinds or settings.languages or settings.examples)
        self._taken: Counter[object] = Counter()

    def refusal(self, row: Row, label: int) -> Broken:
        """Count one more row, and return None; or (reason, detail) where a limit is reached."""
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
