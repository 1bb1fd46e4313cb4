"""Execute the stages that ask a model: pending shards flow through autoscaling pools of engines.

Ray Data hands shard ids to actors, at least once each; each actor holds one engine and several shards at a time, so
that the engine never drains at a shard's tail. A shard counts once by its commit (storage/shards.py), not by Ray.
"""

import asyncio
import functools
import itertools
import json
import logging
import math
import os
import queue
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import ray
from ray.data import ActorPoolStrategy, Dataset
from ray.exceptions import RayError

from speed_ray import engines
from speed_ray.engines.base import BudgetExhausted, EngineDead, FatalEngineError
from speed_ray.errors import Interrupted, Stalled, UserError
from speed_ray.executor import preflight
from speed_ray.executor.former_replies import count_former
from speed_ray.executor.shard_worker import Worker
from speed_ray.executor.stage import Stage
from speed_ray.executor.usage import open_ledger
from speed_ray.on_ray import capacity
from speed_ray.on_ray.drain import DrainGate, DriverLogHandler, is_drained, start_gate, take_warnings
from speed_ray.on_ray.progress import StagesProgress
from speed_ray.on_ray.prometheus_metrics import EngineMetrics
from speed_ray.on_ray.session import resources, session, uses_shared_cluster
from speed_ray.on_ray.worker_errors import ACTOR_LOGS, lost_worker_error, unforeseen_error
from speed_ray.recipes.engine_settings import OpenAIEngine
from speed_ray.storage.fingerprint import without_adapter
from speed_ray.storage.holder import HolderWatch
from speed_ray.storage.planned_rows import FollowedInputs, Inputs
from speed_ray.storage.run import Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import Counts

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0  # between two checks of the watchdog, and two updates of the progress
ALREADY_COMMITTED = -1  # in place of a shard's generation

Batch = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """Pair a stage with its plan."""

    plan: Plan
    stage: Stage


def execute(run: Run, *steps: Step) -> None:
    """Run every pending shard of each plan and publish. Raises UserError, Interrupted or Stalled, losing nothing.

    A step that follows another begins with each shard as soon as it is committed there; steps whose engines differ in
    nothing but the adapter share one pool, others have pools of their own, all busy at once.
    """
    for step in steps:
        _prepare(run, step)
    if all([_try_publish(run, step) for step in steps]):
        return
    with StagesProgress([(run.artifact(step.plan.stage), step.plan, step.stage.engine) for step in steps]) as progress:
        while not all([_try_publish(run, step) for step in steps]):
            with session():
                if pending := list(_pending(run, steps)):  # none, where another driver ended meanwhile what there was
                    _run_shards(run, steps, pending, progress)


def _prepare(run: Run, step: Step) -> None:
    artifact = run.artifact(step.plan.stage)
    manifest = artifact.manifest()
    if manifest is None or manifest["plan"] != step.plan.digest:
        # Before the plan is written: it holds the model's digest, and a model put right would be refused as another.
        inputs = _inputs(run, step.plan)
        preflight.check_engine(step.stage, inputs.of_shard(0) if isinstance(inputs, Inputs) else [])
        if (former := count_former(step.stage, step.plan, inputs)) is not None:
            told = f"{former:,} of {step.plan.rows:,} rows were asked in {step.stage.recipe.reuse} already"
            print(f"{artifact.name}: {told}; these count where their prompts are the same")
    artifact.ensure_plan(step.plan)


def _try_publish(run: Run, step: Step) -> bool:
    # Publication checks every file; a damaged one sends its shard back to pending, and the loop goes around.
    artifact = run.artifact(step.plan.stage)
    return artifact.manifest() is not None or (not artifact.pending(step.plan) and artifact.publish(step.plan))


def _inputs(run: Run, plan: Plan) -> Inputs | FollowedInputs:
    assert plan.input is not None
    source = run.artifact(plan.input)
    return Inputs(source, plan) if plan.variants or plan.mix else FollowedInputs(source)


def _run_shards(run: Run, steps: Sequence[Step], pending: list[dict[str, Any]], progress: StagesProgress) -> None:
    by_engine = itertools.groupby(steps, key=lambda step: without_adapter(step.stage.engine))
    groups = [tuple(group) for _, group in by_engine]  # of steps that share a pool
    stages = [group[0].stage for group in groups]  # those whose pools are used
    for settings in [stage.settings for stage in stages]:
        capacity.check_capacity(capacity.ResourceNeed(f"{settings.key}.pool", settings.pool))
    capacity.check_nodes_match(run)
    gate = start_gate()
    dataset = ray.data.from_items(pending, override_num_blocks=len(pending))
    for group in groups:
        dataset = _through_a_pool(dataset, run, group, gate)
    last_warnings = time.monotonic()
    with _sigterm_event() as stopping:
        for counts in _results(dataset, run, stages, gate, stopping):
            progress.add(counts)
            # A shared cluster's driver gets its actors' logs from Ray itself.
            if not uses_shared_cluster() and time.monotonic() - last_warnings > POLL_SECONDS:
                progress.warn(take_warnings(gate))
                last_warnings = time.monotonic()


@contextmanager
def _sigterm_event() -> Iterator[threading.Event]:
    """Yield an event that SIGTERM sets; a second SIGTERM does what it did before."""
    stopping = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return
    before = signal.getsignal(signal.SIGTERM)

    def stop(number: int, frame: Any) -> None:
        if stopping.is_set() and callable(before):
            before(number, frame)
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    try:
        yield stopping
    finally:
        signal.signal(signal.SIGTERM, before)


def _pending(run: Run, steps: Sequence[Step]) -> Iterator[dict[str, Any]]:
    todo = {step.plan.stage: dict(run.artifact(step.plan.stage).pending(step.plan)) for step in steps}
    # A driver that comes second to one that is paid for its shards begins at the other end.
    watch = HolderWatch(run.store)
    second = any(watch.is_alive(name.removesuffix(".json")) for name in run.store.names("holders"))
    for shard in sorted(set().union(*todo.values()), reverse=second):
        row = {name: generations.get(shard, ALREADY_COMMITTED) for name, generations in todo.items()}
        yield {"shard": shard, **row, **_row_result()}


def _through_a_pool(dataset: Dataset, run: Run, group: tuple[Step, ...], gate: DrainGate) -> Dataset:
    """Add a pool of engines that runs a group's steps on each shard."""
    first = group[0]
    pool, engine = first.stage.settings.pool, first.stage.engine
    # Twice what the engine runs at once, so that it finds work waiting, and a shard more, which may be down to its
    # last rows: with answers of 35 to 665 tokens two shards of 256 kept an engine of 256 83% busy, three 99.8%. An
    # endpoint that pushes back has these wait for seconds (a tenth of 429: 257 rows/s with one more, 465 with three).
    more = 3 if isinstance(engine, OpenAIEngine) else 1
    enough = more + -(-2 * engine.max_concurrency // first.plan.shard_rows)
    # Ray Data (2.60) rounds a shard's part of an engine to five decimals: a pool of up to four engines, three shards
    # each, demands 12 times 0.33333 GPUs of an autoscaler, which makes three, and one of up to two never grows.
    at_once = next((number for number in range(enough, 100_001) if 100_000 % number == 0), enough)
    return dataset.map_batches(
        EngineActor,
        fn_constructor_args=(run.store.uri, group, gate),
        batch_size=1,
        compute=ActorPoolStrategy(
            min_size=pool.min_size,
            max_size=pool.max_size,
            max_tasks_in_flight_per_actor=2 * at_once,
            max_concurrent_calls_per_actor=at_once,
        ),
        **capacity.actor_options(pool),
    )


def _results(
    dataset: Dataset, run: Run, stages: Sequence[Stage], gate: DrainGate, stopping: threading.Event
) -> Iterator[dict[str, Counts]]:
    """Yield each shard's counts by artifact once its last step has it, and an empty dict while none is ready.

    The watchdog counts the time between two shards. Once `stopping` is set, no shard is begun, and Interrupted comes
    when those in progress are committed or the grace period is over. The largest setting of several pools counts.
    """
    watchdog_seconds = max(stage.settings.pool.watchdog_minutes for stage in stages) * 60
    grace_seconds = max(stage.settings.pool.grace_seconds for stage in stages)
    results: queue.Queue[Any] = queue.Queue()
    names = " and ".join(stage.name for stage in stages)
    threading.Thread(target=_consume, args=(dataset, names, results), daemon=True).start()
    last, deadline = time.monotonic(), math.inf
    while True:
        if stopping.is_set() and deadline == math.inf:
            gate.drain.remote()
            deadline = time.monotonic() + grace_seconds
        try:
            item = results.get(timeout=POLL_SECONDS)
        except queue.Empty:
            if deadline < math.inf and (is_drained(gate) or time.monotonic() > deadline):
                raise _stopped(run) from None
            if time.monotonic() - last > watchdog_seconds:
                raise _stalled(stages, watchdog_seconds) from None
            yield {}
            continue
        if item is None:
            if stopping.is_set():
                raise _stopped(run)
            return
        if isinstance(item, BaseException):
            raise item
        last = time.monotonic()
        yield item


def _stopped(run: Run) -> Interrupted:
    return Interrupted(f"stopped. Everything committed is kept in {run.uri}.\nTo go on, run the same command again.")


def _stalled(stages: Sequence[Stage], seconds: float) -> Stalled:
    takes = "; ".join(f"one engine of {stage.name} takes {stage.settings.pool}" for stage in stages)
    return Stalled(
        f"{' and '.join(stage.name for stage in stages)}: no shard was committed for {seconds / 60:g} minutes, "
        f"so the job was ended.\nThe cluster has: {resources()}; {takes}.\n"
        "If the cluster cannot hold one, change the stage's pool; if an engine is slow or an endpoint is "
        f"down, see the actors' logs ({ACTOR_LOGS}). "
        "Then run the same command again: it goes on from the last commit."
    )


def _consume(dataset: Dataset, stages: str, results: "queue.Queue[Any]") -> None:
    """Put each row's counts or error into a queue, None at the end."""
    try:
        for row in dataset.iter_rows():
            if row["error"]:
                results.put((UserError if row["error"] == UserError.__name__ else Interrupted)(row["message"]))
            else:
                results.put({name: Counts(**counts) for name, counts in json.loads(row["counts"]).items()})
        results.put(None)
    except RayError as error:
        results.put(lost_worker_error(stages, error))
    except BaseException as error:
        results.put(error)


class EngineActor:
    """Runs shards on one engine, and returns their counts, or an error that must end the job."""

    def __init__(self, uri: str, steps: tuple[Step, ...], gate: DrainGate) -> None:
        run, self.gate = Run(uri), gate
        logging.basicConfig(level=logging.WARNING)  # into this actor's file on its node
        logging.getLogger("speed_ray").addHandler(DriverLogHandler(gate))
        stages = [step.stage for step in steps]
        self.name = " and ".join(stage.name for stage in stages)
        # Read anew by every actor: Ray restarts a dead one with the same arguments, whatever was spent since.
        ledger = open_ledger(run, stages[0].engine, stages[0].role)
        self.engine = engines.build_engine([stage.engine for stage in stages], ledger, stages[0].role)
        self.workers = {
            step.plan.stage: Worker(
                step.stage, run.artifact(step.plan.stage), step.plan, _inputs(run, step.plan), self.engine, ledger
            )
            for step in steps
        }
        self.metrics = EngineMetrics(run, stages, self.engine)

    @functools.cached_property
    def starting(self) -> "asyncio.Task[None]":
        """Start the engine, once, on the event loop that the shards will run on."""
        return asyncio.ensure_future(self._begin())

    async def _begin(self) -> None:
        await self.engine.start()
        self.watching = asyncio.create_task(self.metrics.watch())  # kept: a task that nobody holds is collected

    async def __call__(self, batch: Batch) -> AsyncIterator[Batch]:
        """Run the shard of one block, unless a pool before this one failed on it."""
        row = {name: column.tolist()[0] for name, column in batch.items()}
        if not row["error"] and await self.gate.begin_shard.remote():
            try:
                row |= await self._work(row)
            finally:
                self.gate.end_shard.remote()
        yield {name: np.array([value]) for name, value in row.items()}

    async def _start(self) -> None:
        try:
            await asyncio.shield(self.starting)
        except EngineDead as error:
            # Another actor would fail as well, every minute until the watchdog; a person can read this one's reason.
            raise Interrupted(f"{self.name}: the engine did not start. {error}") from error

    async def _work(self, row: dict[str, Any]) -> dict[str, str]:
        counted = json.loads(row["counts"])
        try:
            await self._start()
            for name, worker in self.workers.items():
                if row[name] != ALREADY_COMMITTED:
                    began = time.monotonic()
                    counts = await worker.work(row["shard"], row[name])
                    self.metrics.record_shard(worker.stage.name, counts, time.monotonic() - began)
                    counted[name] = asdict(counts or Counts())
            return _row_result(counts=json.dumps(counted))
        except EngineDead as error:
            # exit_actor() would count as a clean end and Ray would not start another; only a death is retried
            # (ray#62746: sys.exit in a pool of one hangs for good).
            log.error("engine died at shard %d: %s; Ray starts another", row["shard"], error)
            os._exit(1)
        except (BudgetExhausted, Interrupted) as error:
            return _row_result(error=Interrupted.__name__, message=str(error))
        except (FatalEngineError, UserError) as error:
            return _row_result(error=UserError.__name__, message=str(error))
        except Exception as error:
            log.exception("shard %d failed", row["shard"])
            ended = unforeseen_error(f"{self.name}, shard {row['shard']}", error)
            return _row_result(error=Interrupted.__name__, message=str(ended))


def _row_result(counts: str = "{}", error: str = "", message: str = "") -> dict[str, str]:
    return {"counts": counts, "error": error, "message": message}
