"""Measure by how much each judge puts the positives of scored examples above their hardest negatives."""

from collections import defaultdict
from typing import Any

import numpy as np

from speed_ray.report.charts import histogram
from speed_ray.report.drawn_examples import DrawnExamples
from speed_ray.report.shown_text import shown_text

BINS = 24


def measure_judged_margins(drawn: DrawnExamples) -> list[dict[str, Any]]:
    """Return a histogram of the margins by each judge; nothing where examples have no scores or no negatives."""
    margins: dict[str, list[float]] = defaultdict(list)
    for row, _ in drawn.rows:
        for score in row.get("scores") or []:
            if score["negatives"]:
                margins[score["judge"]].append(score["positive"] - max(score["negatives"]))
    return [_described(judge, np.array(values)) for judge, values in sorted(margins.items())]


def _described(judge: str, margins: np.ndarray) -> dict[str, Any]:
    low, high = np.quantile(margins, (0.1, 0.9))
    counts, ends = np.histogram(margins, bins=BINS)
    label = f"{shown_text(judge)}: {len(margins):,} margins from {ends[0]:.3g} to {ends[-1]:.3g}"
    return {
        "judge": shown_text(judge),
        "rows": len(margins),
        "mean": float(margins.mean()),
        "low": float(low),
        "high": float(high),
        "nearer": float((margins > 0).mean()),
        "ends": (float(ends[0]), float(ends[-1])),
        "chart": histogram([int(count) for count in counts], label),
    }
