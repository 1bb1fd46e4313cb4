"""A training as its user starts it without Ray, on one thread, and how fast any training went by its own clock."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks import process
from speed_ray.storage.run import Run

FROM = 5  # the step from which on a training is measured: those before it warm up
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}  # as Ray gives a worker of one CPU


def train(run: Run, model: str, overrides: Sequence[str]) -> None:
    """Train a model, from its beginning also where the run has trained it before."""
    forget(run, model)
    changes = [part for override in overrides for part in ("--set", override)]
    arguments = (model, "--recipe", "miniature", "--run", run.uri, *changes)
    process.module("speed_ray.training", *arguments, environment=ONE_THREAD)


def forget(run: Run, model: str) -> None:
    """Take a model out of a run; a reference that was computed for it stays."""
    shutil.rmtree(Path(run.uri, "models", model), ignore_errors=True)


def steps_per_second(run: Run, model: str) -> float:
    """How fast a published model was trained, after its first steps."""
    return rate([(event.step, event.wall_time) for event in _logged(run, model, "loss") if event.step >= FROM])


def last_loss(run: Run, model: str) -> float:
    """The loss of the last step: the same for the same batches and weights."""
    return float(_logged(run, model, "loss")[-1].value)


def tokens_per_second(run: Run, model: str) -> float:
    """The same in tokens, padding not among them."""
    return rate([(event.value, event.wall_time) for event in _logged(run, model, "num_tokens") if event.step >= FROM])


def rate(points: Sequence[tuple[float, float]]) -> float:
    """Return units a second between the first and the last point, each (units so far, seconds on one clock)."""
    (before, began), (after, ended) = points[0], points[-1]
    return (after - before) / (ended - began)


def _logged(run: Run, model: str, tag: str) -> list:
    """The events of a training's TensorBoard files: step, wall_time (when it was logged), value."""
    folder = Path(run.uri, "models", model, "logs")
    return EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload().Scalars(tag)
