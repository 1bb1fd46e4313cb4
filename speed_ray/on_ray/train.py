"""Training under Ray Train: as many workers as the recipe says, on any nodes, begun again when one of them is lost.

What a worker does is training/, which needs no Ray. Its checkpoints and metrics are its own too: Ray Train would have
every rank copy a whole checkpoint (see training/checkpoints.py). Ray starts workers, watches them and starts others.
"""

import logging
import shutil
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import ray
from rich.console import Console

from speed_ray.errors import Interrupted, Stalled, UserError
from speed_ray.on_ray import capacity
from speed_ray.on_ray.progress import LINE_EVERY
from speed_ray.on_ray.prometheus_metrics import TrainingMetrics
from speed_ray.on_ray.session import resources, session
from speed_ray.recipes.schema import TrainingWorkers, Workers
from speed_ray.storage.run import Run

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer

SHOWN = ("loss", "rewards/margins", "rewards/accuracies", "eval_loss", "eval_rewards/accuracies", "learning_rate")
TICK = 0.5  # seconds between two looks at the workers' reports
BEAT = 2.0  # seconds between two signs of life of a worker


Report = Callable[[dict[str, Any]], None]


class TrainingJob(Protocol):
    """What is to be trained; it travels to the workers as it is."""

    @property
    def name(self) -> str:
        """The model's."""

    @property
    def key(self) -> str:
        """Where the recipe has its settings."""

    @property
    def run(self) -> str:
        """The run's URI."""

    @property
    def batch(self) -> int:
        """Rows a step, over all workers."""

    @property
    def workers(self) -> TrainingWorkers:
        """How many, and what each takes."""

    def begin(self) -> bool:
        """Write the plan; return whether there is anything to do."""

    def train(self, report: Report) -> None:
        """Train on one worker of many, calling `report` with metrics now and then."""


def train_on_ray(training: TrainingJob) -> None:
    """Train a model and publish it; nothing is started where it is published. Raises UserError or Interrupted.

    A worker that is lost is made up for `workers.retries` times, each from the last complete checkpoint; after that,
    or when this driver ends, the same command goes on from there. Raises Stalled where the cluster has had no place
    for the workers for `workers.watchdog_minutes`.
    """
    if not training.begin():
        return
    with session():
        capacity.check_capacity(
            capacity.ResourceNeed(f"{training.key}.workers", training.workers, training.workers.counts[0])
        )
        capacity.check_nodes_match(Run(training.run))
        board = ray.remote(num_cpus=0, scheduling_strategy=capacity.driver_node())(_MetricsActor).remote(
            training.run, training.name, training.batch
        )
        ended: list[BaseException | None] = []
        threading.Thread(target=_run, args=(training, board, ended), daemon=True).start()
        with _TrainingProgress(training) as line:
            while not ended:
                time.sleep(TICK)
                metrics, silent = ray.get(board.read.remote())
                line.show(metrics)
                if silent > training.workers.watchdog_minutes * 60:
                    raise _stalled(training)
        kind, message = ray.get(board.fault.remote())
    if kind:
        raise (UserError if kind == UserError.__name__ else Interrupted)(message)
    if ended[0]:
        raise Interrupted(
            f"{training.name}: training ended, {training.workers.retries} restarts included: {ended[0]}\n"
            "Run the same command again: it goes on from the last complete checkpoint."
        )


def _stalled(training: TrainingJob) -> Stalled:
    workers = training.workers
    return Stalled(
        f"{training.name}: no worker was at work for {workers.watchdog_minutes:g} minutes, so the job was ended.\n"
        f"It takes {workers.count} workers of {_need(workers)} each; the cluster has {resources()}.\n"
        "Change the recipe's workers or the cluster, and run the same command again: it goes on from the last "
        "complete checkpoint."
    )


class _MetricsActor:
    """Where workers post how it goes, that they are there, and what a restart would not mend."""

    def __init__(self, run: str, model: str, batch: int) -> None:
        self._metrics: dict[str, Any] = {}
        self._fault = ("", "")
        self._meters = TrainingMetrics(run, model, batch)
        self._beaten = time.monotonic()

    def post(self, metrics: dict[str, Any]) -> None:
        self._metrics |= metrics
        self._meters.post(metrics)

    def fail(self, kind: str, message: str) -> None:
        self._fault = self._fault if self._fault[0] else (kind, message)

    def beat(self) -> None:
        self._beaten = time.monotonic()

    def read(self) -> tuple[dict[str, Any], float]:
        """The newest metrics, and the seconds since a worker last was there."""
        return self._metrics, time.monotonic() - self._beaten

    def fault(self) -> tuple[str, str]:
        return self._fault


def _run(training: TrainingJob, board: Any, ended: list[BaseException | None]) -> None:
    folder = tempfile.mkdtemp(prefix="speed_ray-fit-")  # of Ray's own notes, which nobody reads
    try:
        _trainer(training, board, folder).fit()
        ended.append(None)
    except BaseException as error:
        ended.append(error)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _trainer(training: TrainingJob, board: Any, folder: str) -> "TorchTrainer":
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer  # brings torch, which no other job's driver needs

    logging.getLogger("ray.train").setLevel(logging.ERROR)
    workers = training.workers
    return TorchTrainer(
        _work,
        train_loop_config={"training": training, "board": board},
        scaling_config=ScalingConfig(
            num_workers=(workers.least, workers.count) if workers.least else workers.count,
            use_gpu=workers.gpus > 0,
            resources_per_worker=_resources(workers),
            accelerator_type=workers.accelerator,
            label_selector=workers.labels or None,
        ),
        torch_config=TorchConfig(backend="nccl" if workers.gpus else "gloo"),
        run_config=RunConfig(
            name=f"{training.name}-{uuid.uuid4().hex}",
            storage_path=folder,
            failure_config=FailureConfig(max_failures=workers.retries),
        ),
    )


def _resources(workers: Workers) -> dict[str, float]:
    return {"CPU": workers.cpus, **({"GPU": workers.gpus} if workers.gpus else {})}


def _need(workers: Workers) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in _resources(workers).items())


def _work(config: dict[str, Any]) -> None:
    """Train on one worker. A user's mistake comes back at every restart, so the next one ends at once."""
    import ray.train

    board = config["board"]
    if ray.get(board.fault.remote())[0]:
        return
    first = ray.train.get_context().get_world_rank() == 0

    def report(metrics: dict[str, Any]) -> None:
        if first:
            board.post.remote(metrics)

    ended = threading.Event()
    threading.Thread(target=_beat, args=(board, ended), daemon=True).start()
    try:
        config["training"].train(report)
    except (UserError, Interrupted) as error:
        ray.get(board.fail.remote(type(error).__name__, str(error)))
        raise
    finally:
        ended.set()


def _beat(board: Any, ended: threading.Event) -> None:
    """Say that this worker is there. A step may take long, and one that follows a synthesis waits for rows."""
    while not ended.wait(BEAT):
        board.beat.remote()


class _TrainingProgress:
    """How a training comes on: one line, in place on a terminal, every 30 s in a job's log."""

    def __init__(self, training: TrainingJob) -> None:
        self.training = training
        self.console = Console(stderr=True)
        self.status = self.console.status("") if sys.stderr.isatty() else None
        self.begun = time.monotonic()
        self.lined = 0.0
        self.text = ""

    def __enter__(self) -> "_TrainingProgress":
        if self.status:
            self.status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.status:
            self.status.stop()
        self._print()

    def show(self, metrics: dict[str, Any]) -> None:
        """Take in the newest metrics of the first worker."""
        self.text = f"{self.training.name}: {self._say(metrics)}"
        if self.status:
            self.status.update(self.text)
        elif time.monotonic() - self.lined >= LINE_EVERY:
            self._print()

    def _print(self) -> None:
        self.lined = time.monotonic()
        self.console.print(self.text, markup=False, highlight=False, soft_wrap=True)

    def _say(self, metrics: dict[str, Any]) -> str:
        if "step" not in metrics:
            workers = self.training.workers
            return f"starting {workers.count} workers of {_need(workers)} each; the cluster has {resources()}"
        shown = [f"{name} {metrics[name]:.4g}" for name in SHOWN if name in metrics]
        return " · ".join([f"step {metrics['step']} of {metrics['steps']}", *shown])
