"""Read what each training of a run logged, and draw it."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from speed_ray.console.status import MODELS, trained_rows
from speed_ray.report.charts import Points, curves
from speed_ray.report.shown_text import NAME, TEXT, shown_text
from speed_ray.report.unreadable import Faults
from speed_ray.storage.rounds import later_rounds
from speed_ray.storage.run import Run
from speed_ray.storage.store import read_if_exists
from speed_ray.storage.trained_models import Model
from speed_ray.training.model_card import describe_choice

CHARTS, POINTS = 8, 150  # of a model, and of a line
NOT_DRAWN = ("step", "epoch", "runtime", "per_second", "flos", "tokens", "learning_rate", "steps")
EVAL = "eval_"  # before the name of a metric on held-out rows


def read_trainings(run: Run, faults: Faults) -> list[dict[str, Any]]:
    """Return the charts of each model, with what status says of it; those of later rounds last."""
    named = [(name, Model(run, name)) for name in MODELS]
    later = faults.read("later rounds", [], _later_models, run)
    found = []
    for name, model in (*named, *later):
        metrics = faults.read(f"metrics of {name}", [], read_metrics, model)
        manifest = faults.read(f"the weights of {name}", None, model.manifest)
        if metrics or manifest:
            said = faults.read(f"facts of {name}", [], _said, manifest)
            found.append({"model": name, "trained": manifest is not None, "said": said, "charts": _charts(metrics)})
    return found


def _later_models(run: Run) -> list[tuple[str, Model]]:
    rounds = later_rounds(run)
    return [(f"later_rounds/{number}: {name}", Model(each, name)) for number, each in rounds for name in MODELS]


def read_metrics(model: Model) -> list[dict[str, Any]]:
    """Read the logged steps of a model, without lines that are no JSON object: a file may be half written."""
    logged = read_if_exists(model.store, f"{model.path}/metrics.jsonl") or b""
    return [tree for line in logged.splitlines() for tree in _object(line)]


def _object(line: bytes) -> Iterator[dict[str, Any]]:
    try:
        tree = json.loads(line)
    except ValueError:
        return
    if isinstance(tree, dict) and isinstance(tree.get("step"), int):
        yield tree


def _said(manifest: dict[str, Any] | None) -> list[str]:
    lines = [*trained_rows(manifest), *describe_choice(manifest["facts"])] if manifest else []
    return [shown_text(line.strip(), TEXT) for line in lines]


def _charts(metrics: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Draw the metrics that have two points, loss first; a metric of held-out rows stands with that of training."""
    lines: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for logged in metrics:
        for name, value in logged.items():
            if isinstance(value, int | float) and not any(name.endswith(end) for end in NOT_DRAWN):
                lines[name.removeprefix(EVAL)][name].append((float(logged["step"]), float(value)))
    drawn: list[dict[str, Any]] = []
    for title in sorted(lines, key=lambda title: ("loss" not in title, title)):
        long = {shown_text(name): _thinned(line) for name, line in lines[title].items() if len(line) > 1}
        if long and len(drawn) < CHARTS:
            drawn.append({"title": shown_text(title, NAME), "names": list(long), "chart": curves(title[:NAME], long)})
    return drawn


def _thinned(line: Sequence[tuple[float, float]]) -> Points:
    finite = [point for point in line if abs(point[1]) < float("inf")]
    every = -(-len(finite) // POINTS)
    return [*finite[:-1:every], finite[-1]] if len(finite) > POINTS else finite
