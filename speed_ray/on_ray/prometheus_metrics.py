"""Export a job's metrics to Prometheus: rows, tokens, engines, requests to the store, trainings.

Ray exports a metric NAME on every node's metrics port as `ray_NAME`, a counter as `ray_NAME_total`. They count what
this cluster did; what a run holds, whoever made it, `speed-ray status` reads from storage.
"""

import asyncio
import collections
import time
from typing import Any

from ray.util.metrics import Counter, Gauge, Histogram

from speed_ray.engines.base import Engine, Load
from speed_ray.executor.stage import Stage
from speed_ray.recipes.engine_settings import OpenAIEngine
from speed_ray.storage.run import Run
from speed_ray.storage.shards import Counts
from speed_ray.storage.spending import Usage

EXPORT_SECONDS = 5.0  # Ray's own reporter goes round every 10
SHARD_SECONDS = [1, 3, 10, 30, 60, 120, 300, 600, 1_800, 3_600]

COUNTERS = {
    "speed_ray_rows": ("Planned rows that came to their end.", ("run", "stage", "outcome")),
    "speed_ray_tokens": ("Tokens of committed rows: prompts (in) and replies (out).", ("run", "stage", "direction")),
    "speed_ray_commits": ("Shards committed (won), or by another first (lost).", ("run", "stage", "outcome")),
    "speed_ray_retries": ("Requests repeated after a malformed reply.", ("run", "stage")),
    "speed_ray_teacher_dollars": ("What committed rows cost at the recipe's price.", ("run", "stage")),
    "speed_ray_prefix_cache_tokens": ("Prompt tokens that were cached (hit) or not.", ("run", "stage", "outcome")),
    "speed_ray_gpu_seconds": ("GPU-seconds that engines have held.", ("run", "stage")),
    "speed_ray_store_requests": ("Requests to the run's storage.", ("run", "verb")),
}
GAUGES = {
    "speed_ray_engine_requests": (
        "Requests that an engine answers (running), and that wait.",
        ("run", "stage", "state"),
    ),
    "speed_ray_training_loss": ("The loss that was logged last.", ("run", "model")),
    "speed_ray_training_step": ("The step that was logged last.", ("run", "model")),
    "speed_ray_training_examples_per_second": ("Rows that are trained on.", ("run", "model")),
}
HISTOGRAMS = {"speed_ray_shard_seconds": ("Seconds from a shard's start to its commit.", ("run", "stage"))}


class Metrics:
    """Holds the metrics of one process, all of one run."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._counters = {name: Counter(name, *about) for name, about in COUNTERS.items()}
        self._gauges = {name: Gauge(name, *about) for name, about in GAUGES.items()}
        self._histograms = {
            name: Histogram(name, text, SHARD_SECONDS, tags) for name, (text, tags) in HISTOGRAMS.items()
        }

    def add(self, name: str, amount: float, **tags: str) -> None:
        """Increase a counter, unless by nothing: Ray refuses that."""
        if amount > 0:
            self._counters[f"speed_ray_{name}"].inc(amount, {"run": self._run, **tags})

    def set(self, name: str, value: float, **tags: str) -> None:
        """Set a gauge."""
        self._gauges[f"speed_ray_{name}"].set(value, {"run": self._run, **tags})

    def observe(self, name: str, value: float, **tags: str) -> None:
        """Add one measurement to a histogram."""
        self._histograms[f"speed_ray_{name}"].observe(value, {"run": self._run, **tags})


class EngineMetrics:
    """Exports each shard of one engine's stages, and the engine's own load every 5 s."""

    def __init__(self, run: Run, stages: list[Stage], engine: Engine) -> None:
        self._metrics = Metrics(run.store.uri)
        self.engine = engine
        self.store = run.store
        self.stages = {stage.name: stage for stage in stages}
        self.name = " and ".join(self.stages)
        self.gpus = stages[0].settings.pool.num_gpus
        self._load, self._requests, self._exported = Load(0, 0), collections.Counter[str](), time.monotonic()

    def record_shard(self, stage: str, counts: Counts | None, seconds: float) -> None:
        """Count a shard that ended; None where another engine committed it first."""
        self._export_engine()  # an engine's last seconds count as well, or its only ones
        metrics, engine = self._metrics, self.stages[stage].engine
        metrics.add("commits", 1, stage=stage, outcome="won" if counts else "lost")
        if counts is None:
            return
        metrics.observe("shard_seconds", seconds, stage=stage)
        metrics.add("rows", counts.accepted, stage=stage, outcome="accepted")
        metrics.add("rows", counts.rejected, stage=stage, outcome="rejected")
        metrics.add("tokens", counts.prompt_tokens, stage=stage, direction="in")
        metrics.add("tokens", counts.output_tokens, stage=stage, direction="out")
        metrics.add("retries", counts.retries, stage=stage)
        if isinstance(engine, OpenAIEngine):
            spent = Usage(counts.calls, counts.prompt_tokens, counts.output_tokens)
            metrics.add("teacher_dollars", spent.dollars(engine.price), stage=stage)

    async def watch(self) -> None:
        """Export the engine's load, time and storage requests for ever."""
        while True:
            await asyncio.sleep(EXPORT_SECONDS)
            self._export_engine()

    def _export_engine(self) -> None:
        metrics, before, load, now = self._metrics, self._load, self.engine.load(), time.monotonic()
        metrics.add("gpu_seconds", self.gpus * (now - self._exported), stage=self.name)
        metrics.set("engine_requests", load.running, stage=self.name, state="running")
        metrics.set("engine_requests", load.waiting, stage=self.name, state="waiting")
        cached = load.cached_tokens - before.cached_tokens
        metrics.add("prefix_cache_tokens", cached, stage=self.name, outcome="hit")
        metrics.add(
            "prefix_cache_tokens", load.prompt_tokens - before.prompt_tokens - cached, stage=self.name, outcome="miss"
        )
        requests = collections.Counter(self.store.requests)
        for verb, count in (requests - self._requests).items():
            metrics.add("store_requests", count, verb=verb)
        self._load, self._requests, self._exported = load, requests, now


class TrainingMetrics:
    """Exports what a training's first worker logs."""

    def __init__(self, run: str, model: str, batch: int) -> None:
        self._metrics = Metrics(run)
        self.model, self.batch = model, batch
        self.last: tuple[float, int] | None = None

    def post(self, logged: dict[str, Any]) -> None:
        """Export one report."""
        now, step = time.monotonic(), int(logged.get("step", 0))
        self._metrics.set("training_step", step, model=self.model)
        if "loss" in logged:
            self._metrics.set("training_loss", float(logged["loss"]), model=self.model)
        if self.last and step > self.last[1]:
            rows = (step - self.last[1]) * self.batch
            self._metrics.set("training_examples_per_second", rows / (now - self.last[0]), model=self.model)
        self.last = now, step
