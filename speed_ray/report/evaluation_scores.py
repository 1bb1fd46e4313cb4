"""Read the scores of a run's evaluation, with the interval of each gain over the base."""

from typing import Any

from speed_ray.console.status import published_results, scored_models
from speed_ray.evaluation.datasets import MAIN_SCORES, describe_faults
from speed_ray.report.charts import interval
from speed_ray.report.shown_text import TEXT, shown_text
from speed_ray.storage.run import Run

BASE = "base"


def read_scores(run: Run) -> list[dict[str, Any]]:
    """Return a row for each set: the metric, each model's score, and gains over the base where queries were scored."""
    by_set: dict[tuple[str, ...], dict[str, Any]] = {}
    for model in scored_models(run):
        for result in published_results(run, model):
            by_set.setdefault((result["kind"], result["name"], *result["sources"]), {})[model] = result
    rows = [_row(kind, name, results) for (kind, name, *_), results in by_set.items()]
    bound = max((abs(end) for row in rows for _, gain in row["gains"] for end in (gain.low, gain.high)), default=0.0)
    for row in rows:
        row["gains"] = [
            (name, str(gain), interval(gain.low, gain.mean, gain.high, bound)) for name, gain in row["gains"]
        ]
    return rows


def _row(kind: str, name: str, results: dict[str, Any]) -> dict[str, Any]:
    metric = MAIN_SCORES[kind]  # type: ignore[index]
    base = results.get(BASE, {}).get("by_query")
    gains = []
    if base:
        from speed_ray.evaluation.intervals import paired_gain  # brings scipy

        for model, result in results.items():
            if model != BASE and (gain := paired_gain(base, result.get("by_query", {}))):
                gains.append((model, gain))
    first = next(iter(results.values()))
    return {
        "set": shown_text(name),
        "metric": metric,
        "scores": {model: f"{result['scores'][metric]:.4f}" for model, result in results.items()},
        "gains": gains,
        "faults": [shown_text(fault, TEXT) for fault in describe_faults(first.get("facts", {}))],
    }
