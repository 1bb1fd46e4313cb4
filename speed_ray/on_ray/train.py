"""Train a model under Ray Train: on as many workers as the recipe says, restarted when one of them is lost.

What a worker does is training/, which needs no Ray. Its checkpoints and metrics are its own too: Ray Train would have
every rank copy a whole checkpoint (see training/checkpoints.py). Ray starts workers, watches them and starts others.
"""

import logging
import re
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import ray
from ray.exceptions import RayError

from speed_ray.errors import Interrupted, Stalled, UserError
from speed_ray.on_ray import capacity
from speed_ray.on_ray.progress import LineProgress
from speed_ray.on_ray.prometheus_metrics import TrainingMetrics
from speed_ray.on_ray.session import resources, session
from speed_ray.on_ray.worker_errors import lost_worker_error, unforeseen_error
from speed_ray.recipes.training_settings import TrainingWorkers
from speed_ray.storage.run import Run

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5  # between two reads of the workers' reports
HEARTBEAT_SECONDS = 2.0
SHOWN_METRICS = (
    "loss", "rewards/margins", "rewards/accuracies", "eval_loss", "eval_rewards/accuracies", "eval_ndcg_at_10",
    "learning_rate",
)  # fmt: skip

Report = Callable[[dict[str, Any]], None]


class TrainingJob(Protocol):
    """Describes a model to be trained; it travels to the workers as it is."""

    @property
    def name(self) -> str:
        """Return the model's name."""

    @property
    def key(self) -> str:
        """Return the recipe's key of its settings."""

    @property
    def run(self) -> str:
        """Return the run's URI."""

    @property
    def global_batch_size(self) -> int:
        """Return the rows of a step, over all workers."""

    @property
    def workers(self) -> TrainingWorkers:
        """Return how many workers there are, and what each takes."""

    def begin(self) -> bool:
        """Write the plan; return whether there is anything to do."""


Job = TypeVar("Job", bound=TrainingJob)


def train_on_ray(training: Job, train_model: Callable[[Job, Report], None]) -> None:
    """Train a model and publish it; nothing is started where it is published. Raises UserError or Interrupted.

    `train_model` is called on every worker with the job and with what takes the metrics of a step.

    A lost worker is replaced `workers.max_failures` times, each time from the last complete checkpoint; after that, or
    when this driver ends, the same command goes on from there. Raises Stalled where the cluster has had no capacity
    for the workers for `workers.watchdog_minutes`.
    """
    if not training.begin():
        return
    workers = training.workers
    with session():
        capacity.check_capacity(capacity.ResourceNeed(f"{training.key}.workers", workers, workers.counts[0]))
        capacity.check_nodes_match(Run(training.run))
        metrics_actor = (
            ray.remote(_MetricsActor)
            .options(num_cpus=0, scheduling_strategy=capacity.driver_node())
            .remote(training.run, training.name, training.global_batch_size)
        )
        ended: list[BaseException | None] = []
        threading.Thread(target=_fit, args=(training, train_model, metrics_actor, ended), daemon=True).start()
        need = f"{workers.num_workers} workers of {capacity.ResourceNeed(training.key, workers)} each"
        starting = f"{training.name}: starting {need}; the cluster has {resources()}"
        with LineProgress(starting) as progress:
            while not ended:
                time.sleep(POLL_SECONDS)
                metrics, silent_seconds = ray.get(metrics_actor.read.remote())
                progress.show(f"{training.name}: {_describe(metrics)}" if "step" in metrics else starting)
                if silent_seconds > workers.watchdog_minutes * 60:
                    raise Stalled(
                        f"{training.name}: no worker was at work for {workers.watchdog_minutes:g} minutes, so the job "
                        f"was ended.\nIt takes {need}; the cluster has {resources()}.\nChange the recipe's workers or "
                        "the cluster, and run the same command again: it goes on from the last complete checkpoint."
                    )
        kind, message = ray.get(metrics_actor.error.remote())
    if kind:
        raise (UserError if kind == UserError.__name__ else Interrupted)(message)
    if ended[0]:
        raise lost_worker_error(f"{training.name}, {workers.max_failures} restarts included", ended[0])


def _describe(metrics: dict[str, Any]) -> str:
    shown = [f"{name} {metrics[name]:.4g}" for name in SHOWN_METRICS if name in metrics]
    left_out = sum(count for name, count in metrics.items() if name.startswith("left_out/"))
    shown += [f"{left_out:,} rows left out"] if left_out else []
    return " · ".join([f"step {metrics['step']} of {metrics['steps']}", *shown])


class _MetricsActor:
    """Holds the workers' newest metrics, their last heartbeat, and an error that a restart would not mend."""

    def __init__(self, run: str, model: str, batch: int) -> None:
        self._metrics: dict[str, Any] = {}
        self._error = ("", "")
        self._exported = TrainingMetrics(run, model, batch)
        self._heartbeat = time.monotonic()

    def post(self, metrics: dict[str, Any]) -> None:
        self._metrics |= metrics
        self._exported.post(metrics)

    def fail(self, kind: str, message: str) -> None:
        self._error = self._error if self._error[0] else (kind, message)

    def beat(self) -> None:
        self._heartbeat = time.monotonic()

    def read(self) -> tuple[dict[str, Any], float]:
        """Return the newest metrics, and the seconds since the last worker heartbeat."""
        return self._metrics, time.monotonic() - self._heartbeat

    def error(self) -> tuple[str, str]:
        return self._error


def _fit(
    training: Job, train_model: Callable[[Job, Report], None], metrics_actor: Any, ended: list[BaseException | None]
) -> None:
    folder = tempfile.mkdtemp(prefix="speed_ray-fit-")  # of Ray's own notes, which nobody reads
    try:
        _trainer(training, train_model, metrics_actor, folder).fit()
        ended.append(None)
    except BaseException as error:
        ended.append(error)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _trainer(
    training: Job, train_model: Callable[[Job, Report], None], metrics_actor: Any, folder: str
) -> "TorchTrainer":
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer  # brings torch, which no other job's driver needs

    logging.getLogger("ray.train").setLevel(logging.ERROR)
    workers = training.workers
    return TorchTrainer(
        _train_worker,
        train_loop_config={"training": training, "train_model": train_model, "metrics_actor": metrics_actor},
        scaling_config=ScalingConfig(
            num_workers=(workers.min_workers, workers.num_workers) if workers.min_workers else workers.num_workers,
            use_gpu=workers.num_gpus > 0,
            resources_per_worker={"CPU": workers.num_cpus, **({"GPU": workers.num_gpus} if workers.num_gpus else {})},
            accelerator_type=workers.accelerator_type,
            label_selector=workers.label_selector or None,
        ),
        torch_config=TorchConfig(backend="nccl" if workers.num_gpus else "gloo"),
        run_config=RunConfig(
            name=f"{training.name}-{uuid.uuid4().hex}",
            storage_path=folder,
            failure_config=FailureConfig(max_failures=workers.max_failures),
        ),
    )


def _train_worker(config: dict[str, Any]) -> None:
    """Train on one worker. What would come back at every restart is noted, so that the next one ends at once."""
    import ray.train

    metrics_actor, training = config["metrics_actor"], config["training"]
    if ray.get(metrics_actor.error.remote())[0]:
        return
    is_first = ray.train.get_context().get_world_rank() == 0

    def report(metrics: dict[str, Any]) -> None:
        if is_first:
            metrics_actor.post.remote(metrics)

    ended = threading.Event()
    threading.Thread(target=_send_heartbeats, args=(metrics_actor, ended), daemon=True).start()
    try:
        config["train_model"](training, report)
    except (UserError, Interrupted) as error:
        ray.get(metrics_actor.fail.remote(type(error).__name__, str(error)))
        raise
    except Exception as error:
        if not _is_of_a_loss(error):
            log.exception("%s failed", training.name)
            ray.get(metrics_actor.fail.remote(Interrupted.__name__, str(unforeseen_error(training.name, error))))
        raise
    finally:
        ended.set()


def _is_of_a_loss(error: Exception) -> bool:
    """Tell whether an exception may come of a worker, a link or a GPU that was lost, and not come back."""
    import torch

    if isinstance(
        error, ConnectionError | TimeoutError | RayError | torch.AcceleratorError | torch.distributed.DistError
    ):
        return True
    # Gloo raises RuntimeError alone: "[.../gloo/transport/tcp/pair.cc:534] Connection closed by peer".
    return isinstance(error, RuntimeError) and bool(re.search("gloo|nccl|connection|timed out", str(error), re.I))


def _send_heartbeats(metrics_actor: Any, ended: threading.Event) -> None:
    """Report that this worker lives. A step may take long, and one that follows a synthesis waits for rows."""
    while not ended.wait(HEARTBEAT_SECONDS):
        metrics_actor.beat.remote()
