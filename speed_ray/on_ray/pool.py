"""The one executor of all stages that ask a model: pending shards flow through an autoscaling pool of engines.

Ray Data hands shard ids to actors, at least once each; each actor holds one engine and several shards at a time, so
that the engine never drains at a shard's tail. What makes a shard count once is its commit (shards.py), not Ray.
"""

import asyncio
import functools
import json
import logging
import os
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import ray
from ray.data import ActorPoolStrategy, Dataset

from speed_ray import engines, preflight
from speed_ray.engines.budget import Spent
from speed_ray.engines.engine import BudgetSpent, EngineDead, EngineRefused
from speed_ray.errors import Interrupted, Stalled, UserError
from speed_ray.inputs import Inputs
from speed_ray.on_ray.session import resources, session
from speed_ray.progress import Progress
from speed_ray.recipe import Recipe
from speed_ray.run import Run
from speed_ray.shards import Artifact, Counts, Plan
from speed_ray.spending import spent
from speed_ray.stage import Stage
from speed_ray.worker import Worker

log = logging.getLogger(__name__)

TICK = 1.0  # seconds between two looks at the watchdog and the progress bar

Batch = dict[str, Any]
MakeStage = Callable[[Recipe], Stage]


def execute(run: Run, artifact: Artifact, plan: Plan, make_stage: MakeStage, recipe: Recipe) -> None:
    """Work off every pending shard of a plan and publish. Raises UserError, Interrupted or Stalled, losing nothing."""
    stage = make_stage(recipe)
    published = artifact.manifest() is not None
    if not published:
        # Before the plan is written: it holds the model's digest, and a model put right would be refused as another.
        preflight.check(stage, Inputs(run.artifact(str(plan.input)), plan))
    artifact.ensure_plan(plan)
    if published:
        return
    with Progress(artifact, plan, stage.engine) as progress:
        while not _published(artifact, plan):
            with session():
                for counts in _answers(_dataset(run, artifact, plan, make_stage, recipe), stage):
                    progress.add(counts)


def _published(artifact: Artifact, plan: Plan) -> bool:
    # Publication checks every file; a damaged one sends its shard back to pending, and the loop goes around.
    return not artifact.pending(plan) and artifact.publish(plan)


def _dataset(run: Run, artifact: Artifact, plan: Plan, make_stage: MakeStage, recipe: Recipe) -> Dataset:
    stage = make_stage(recipe)
    pool = stage.settings.pool
    pending = [{"shard": shard, "generation": generation} for shard, generation in artifact.pending(plan)]
    # Twice what the engine runs at once: it finds work waiting while the tail of a shard is still being written.
    at_once = max(2, -(-2 * stage.engine.in_flight // plan.shard_rows))
    return ray.data.from_items(pending, override_num_blocks=len(pending)).map_batches(
        EngineActor,
        fn_constructor_args=(run.uri, artifact.name, plan, make_stage, recipe, spent(run, stage.role)),
        batch_size=1,
        compute=ActorPoolStrategy(
            min_size=pool.min,
            max_size=pool.max,
            max_tasks_in_flight_per_actor=2 * at_once,
            max_concurrent_calls_per_actor=at_once,
        ),
        num_cpus=pool.cpus,
        num_gpus=pool.gpus,
        accelerator_type=pool.accelerator,
    )


def _answers(dataset: Dataset, stage: Stage) -> Iterator[Counts]:
    """Yield each shard's counts as it is committed, and nothing's counts now and then so that progress can be shown.

    The watchdog counts the time between two commits.
    """
    arrived: queue.Queue[Any] = queue.Queue()
    threading.Thread(target=_consume, args=(dataset, arrived), daemon=True).start()
    last = time.monotonic()
    while True:
        try:
            item = arrived.get(timeout=TICK)
        except queue.Empty:
            if time.monotonic() - last > stage.settings.pool.watchdog_minutes * 60:
                raise _stalled(stage) from None
            yield Counts()
            continue
        if item is None:
            return
        if isinstance(item, BaseException):
            raise item
        last = time.monotonic()
        yield item


def _stalled(stage: Stage) -> Stalled:
    pool = stage.settings.pool
    return Stalled(
        f"{stage.name}: no shard was committed for {pool.watchdog_minutes:g} minutes, so the job was ended.\n"
        f"The cluster has: {resources()}. One engine of this stage takes {pool}.\n"
        "If the cluster cannot hold one, change the stage's pool; if an engine is slow or an endpoint is "
        "down, see the actors' logs. Then run the same command again: it goes on from the last commit."
    )


def _consume(dataset: Dataset, arrived: "queue.Queue[Any]") -> None:
    try:
        for row in dataset.iter_rows():
            arrived.put(_read(row))
        arrived.put(None)
    except BaseException as error:
        arrived.put(error)


def _read(row: dict[str, Any]) -> Counts | Exception:
    if row["error"]:
        return (UserError if row["error"] == UserError.__name__ else Interrupted)(row["message"])
    return Counts(**json.loads(row["counts"]))


class EngineActor:
    """One engine in one Ray actor. Ray calls it with shards; it answers with counts, or with why the job must end."""

    def __init__(
        self, uri: str, artifact: str, plan: Plan, make_stage: MakeStage, recipe: Recipe, before: Spent
    ) -> None:
        run = Run(uri)
        stage = make_stage(recipe)
        assert plan.input is not None
        self.engine = engines.build(stage.engine, before, stage.role)
        inputs = Inputs(run.artifact(plan.input), plan)
        self.worker = Worker(stage, run.artifact(artifact), plan, inputs, self.engine)

    @functools.cached_property
    def starting(self) -> "asyncio.Task[None]":
        """Starting the engine, once, on the event loop that the shards will run on."""
        return asyncio.ensure_future(self.engine.start())

    async def __call__(self, batch: Batch) -> AsyncIterator[Batch]:
        """Work on the shards of one block."""
        for shard, generation in zip(batch["shard"].tolist(), batch["generation"].tolist(), strict=True):
            yield await self._work(shard, generation)

    async def _start(self) -> None:
        try:
            await asyncio.shield(self.starting)
        except EngineDead as error:
            # Another actor would fail alike, every minute until the watchdog; a person can read this one's reason.
            raise Interrupted(f"{self.worker.stage.name}: the engine did not start. {error}") from error

    async def _work(self, shard: int, generation: int) -> Batch:
        try:
            await self._start()
            counts = await self.worker.work(shard, generation)
            return _row(counts=json.dumps(asdict(counts or Counts())))
        except EngineDead as error:
            # exit_actor() would count as a clean end and Ray would not start another; only a death is retried
            # (ray#62746: sys.exit in a pool of one hangs for good).
            log.error("engine died at shard %d: %s; Ray starts another", shard, error)
            os._exit(1)
        except BudgetSpent as error:
            return _row(error=Interrupted.__name__, message=str(error))
        except EngineRefused as error:
            return _row(error=UserError.__name__, message=str(error))
        except (UserError, Interrupted) as error:
            return _row(error=type(error).__name__, message=str(error))


def _row(counts: str = "", error: str = "", message: str = "") -> Batch:
    return {key: np.array([value]) for key, value in (("counts", counts), ("error", error), ("message", message))}
