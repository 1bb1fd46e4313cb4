"""What a cluster's Prometheus reads of a job: rows, tokens, engines, requests to the store, trainings.

Ray exports a metric NAME on every node's metrics port as `ray_NAME`, a counter as `ray_NAME_total`. They count what
this cluster did; what a run holds, whoever made it, `speed-ray status` reads from storage.
"""

import asyncio
import time
from collections import Counter as Tally
from typing import Any

from ray.util.metrics import Counter, Gauge, Histogram

from speed_ray.engines.base import Engine, Load
from speed_ray.engines.budget import Usage
from speed_ray.executor.stage import Stage
from speed_ray.recipes.schema import OpenAIEngine
from speed_ray.storage.run import Run
from speed_ray.storage.shards import Counts

TICK = 5.0  # seconds; Ray's own reporter goes round every 10
SHARD_SECONDS = [1, 3, 10, 30, 60, 120, 300, 600, 1_800, 3_600]

COUNTERS = {
    "speed_ray_rows": ("Planned rows that came to their end.", ("run", "stage", "outcome")),
    "speed_ray_tokens": ("Tokens of committed rows: prompts (in) and replies (out).", ("run", "stage", "direction")),
    "speed_ray_commits": ("Shards committed (won), or by another first (lost).", ("run", "stage", "outcome")),
    "speed_ray_retries": ("Malformed replies that were asked for again.", ("run", "stage")),
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
    """The metrics of one process, all of one run. Amounts of nothing are left out: Ray refuses them."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._counters = {name: Counter(name, *about) for name, about in COUNTERS.items()}
        self._gauges = {name: Gauge(name, *about) for name, about in GAUGES.items()}
        self._histograms = {
            name: Histogram(name, text, SHARD_SECONDS, tags) for name, (text, tags) in HISTOGRAMS.items()
        }

    def add(self, name: str, amount: float, **tags: str) -> None:
        """Count on."""
        if amount > 0:
            self._counters[f"speed_ray_{name}"].inc(amount, {"run": self._run, **tags})

    def set(self, name: str, value: float, **tags: str) -> None:
        """Say how it stands."""
        self._gauges[f"speed_ray_{name}"].set(value, {"run": self._run, **tags})

    def observe(self, name: str, value: float, **tags: str) -> None:
        """Take one measurement among many."""
        self._histograms[f"speed_ray_{name}"].observe(value, {"run": self._run, **tags})


class EngineMetrics:
    """What one engine's actor exports: each shard of its stages, and now and then the engine itself."""

    def __init__(self, run: Run, stages: list[Stage], engine: Engine) -> None:
        self.meters = Metrics(run.store.uri)
        self.engine = engine
        self.store = run.store
        self.stages = {stage.name: stage for stage in stages}
        self.name = " and ".join(self.stages)
        self.gpus = stages[0].settings.pool.gpus
        self.load, self.asked, self.looked = Load(0, 0), Tally[str](), time.monotonic()

    def shard(self, stage: str, counts: Counts | None, seconds: float) -> None:
        """Count a shard that was worked on; without counts another was first."""
        self._look()  # an engine's last seconds count as well, or its only ones
        meters, engine = self.meters, self.stages[stage].engine
        meters.add("commits", 1, stage=stage, outcome="won" if counts else "lost")
        if counts is None:
            return
        meters.observe("shard_seconds", seconds, stage=stage)
        meters.add("rows", counts.accepted, stage=stage, outcome="accepted")
        meters.add("rows", counts.rejected, stage=stage, outcome="rejected")
        meters.add("tokens", counts.prompt_tokens, stage=stage, direction="in")
        meters.add("tokens", counts.output_tokens, stage=stage, direction="out")
        meters.add("retries", counts.retries, stage=stage)
        if isinstance(engine, OpenAIEngine):
            spent = Usage(counts.calls, counts.prompt_tokens, counts.output_tokens)
            meters.add("teacher_dollars", spent.dollars(engine.price), stage=stage)

    async def watch(self) -> None:
        """Say for ever what the engine is at, and count the time and the requests that went by meanwhile."""
        while True:
            await asyncio.sleep(TICK)
            self._look()

    def _look(self) -> None:
        meters, before, load, now = self.meters, self.load, self.engine.load(), time.monotonic()
        meters.add("gpu_seconds", self.gpus * (now - self.looked), stage=self.name)
        meters.set("engine_requests", load.running, stage=self.name, state="running")
        meters.set("engine_requests", load.waiting, stage=self.name, state="waiting")
        cached = load.cached_tokens - before.cached_tokens
        meters.add("prefix_cache_tokens", cached, stage=self.name, outcome="hit")
        meters.add(
            "prefix_cache_tokens", load.prompt_tokens - before.prompt_tokens - cached, stage=self.name, outcome="miss"
        )
        asked = Tally(self.store.requests)
        for verb, count in (asked - self.asked).items():
            meters.add("store_requests", count, verb=verb)
        self.load, self.asked, self.looked = load, asked, now


class TrainingMetrics:
    """What a training exports; its workers post what they log."""

    def __init__(self, run: str, model: str, batch: int) -> None:
        self.meters = Metrics(run)
        self.model, self.batch = model, batch
        self.last: tuple[float, int] | None = None

    def post(self, metrics: dict[str, Any]) -> None:
        """Take one report of the first worker."""
        now, step = time.monotonic(), int(metrics.get("step", 0))
        self.meters.set("training_step", step, model=self.model)
        if "loss" in metrics:
            self.meters.set("training_loss", float(metrics["loss"]), model=self.model)
        if self.last and step > self.last[1]:
            rows = (step - self.last[1]) * self.batch
            self.meters.set("training_examples_per_second", rows / (now - self.last[0]), model=self.model)
        self.last = now, step
