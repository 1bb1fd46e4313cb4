"""Save a training's checkpoints and metrics to the run's storage, in the background, and resume from them.

    checkpoints/<step>-<attempt>/<rank>/...        what one rank saved
    checkpoints/<step>-<attempt>/rank-<rank>.json  its files with sizes and sha256, written last

A checkpoint is complete when the lists of all ranks are there. `attempt` names one start of the training, so that the
files of two starts never mix. No code in a checkpoint is run: PyTorch and DeepSpeed load tensors and plain data alone.
"""

import contextlib
import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from speed_ray.errors import UserError
from speed_ray.storage.store import delete_if_allowed
from speed_ray.storage.trained_models import Model, file_fingerprint
from speed_ray.training import distributed
from speed_ray.training.plan import TrainingPlan

KEEP_CHECKPOINTS = 2  # complete ones
LOGGED_STEPS = 100  # that a training logs, at most about so many
WEIGHTS_ONLY_VARIABLE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
RANK_FILE = re.compile(r"(([0-9]{8})-([0-9a-f]+))/rank-([0-9]+)\.json")


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint, written by `world_size` ranks at DeepSpeed's ZeRO stage `zero_stage`."""

    name: str
    step: int
    world_size: int
    zero_stage: int
    files: tuple[tuple[int, dict[str, Any]], ...]  # (rank, {path, bytes, sha256})


@contextlib.contextmanager
def weights_only_loading(zero_stage: int) -> Iterator[None]:
    """Restrict torch.load to tensors and plain data: DeepSpeed 0.19 asks it for whole pickles, which can run code.

    The three allowed classes are all that DeepSpeed's own states hold besides (seen at stages 1 to 3, fp32 and bf16).
    """
    allowed: list[Any] = []
    if zero_stage:
        from deepspeed.runtime.fp16.loss_scaler import LossScaler
        from deepspeed.runtime.zero.config import ZeroStageEnum
        from deepspeed.utils.tensor_fragment import fragment_address

        allowed = [LossScaler, ZeroStageEnum, fragment_address]
    before = os.environ.get(WEIGHTS_ONLY_VARIABLE)
    os.environ[WEIGHTS_ONLY_VARIABLE] = "1"
    try:
        with torch.serialization.safe_globals(allowed):
            yield
    finally:
        os.environ.pop(WEIGHTS_ONLY_VARIABLE) if before is None else os.environ.update({WEIGHTS_ONLY_VARIABLE: before})


class Checkpoints:
    """Writes and reads the checkpoints of one model, as one rank."""

    def __init__(self, model: Model, plan_digest: str, zero_stage: int, attempt: str) -> None:
        self.model = model
        self.folder = f"{model.path}/checkpoints"
        self.where = f"{model.where}/checkpoints"
        self.rank = distributed.rank()
        self.header = {"plan": plan_digest, "zero": zero_stage, "world": distributed.world_size()}
        self.attempt = attempt
        self._uploader = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._upload: Future[None] | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error: object) -> None:
        self._uploader.shutdown()  # a checkpoint saved before an error is still uploaded

    @property
    def node_folder(self) -> Path:
        """Return where this node's workers download checkpoints to; two Ray nodes may share a machine's temp dir."""
        return Path(tempfile.gettempdir()) / f"speed_ray-resumed-{self.attempt}-{distributed.first_of_node()}"

    def save(self, step: int, folder: Path, best_step: int | None = None) -> None:
        """Upload this rank's files in a local folder in the background, then delete the folder.

        Waits for the previous upload, so that the local disk never holds more than two, and raises its error.
        The checkpoint of `best_step` stays, however old it is.
        """
        self.wait()
        self._upload = self._uploader.submit(self._save, f"{step:08d}-{self.attempt}", step, folder, best_step)

    def wait(self) -> None:
        """Wait for the last upload, and raise its error."""
        if self._upload is not None:
            self._upload.result()

    def complete(self) -> list[Checkpoint]:
        """List the complete checkpoints of this plan, newest first.

        Those of another are passed over: its plan.json was deleted, or the folder was copied.
        """
        ranks: dict[str, dict[int, str]] = {}
        for name in self.model.store.names(self.folder):
            if match := RANK_FILE.fullmatch(name):
                ranks.setdefault(match[1], {})[int(match[4])] = name
        found = [self._read(name, ranks[name]) for name in sorted(ranks, reverse=True)]
        return [checkpoint for checkpoint in found if checkpoint]

    def download(self, checkpoint: Checkpoint, folder: Path) -> bool:
        """Download all ranks' files to a local folder. Returns False where one is missing or damaged."""
        for rank, entry in checkpoint.files:
            file = folder / entry["path"]
            file.parent.mkdir(parents=True, exist_ok=True)
            try:
                self.model.store.download(f"{self.folder}/{checkpoint.name}/{rank}/{entry['path']}", file)
            except FileNotFoundError:
                return False
            if {"path": entry["path"], **file_fingerprint(file)} != entry:
                return False
        return True

    def restore(self, checkpoint: Checkpoint) -> Path | None:
        """Download a checkpoint once for all workers of each node; None where it is damaged. All workers call this."""
        folder = self.node_folder / checkpoint.name
        is_whole = self.download(checkpoint, folder) if distributed.is_first_of_node() else True
        return folder if distributed.all_agree(is_whole) else None

    def _save(self, name: str, step: int, folder: Path, best_step: int | None) -> None:
        entries = []
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            path = file.relative_to(folder).as_posix()
            entries.append({"path": path, **file_fingerprint(file)})
            self.model.store.upload(f"{self.folder}/{name}/{self.rank}/{path}", file)
        listed = json.dumps({**self.header, "step": step, "files": entries}, sort_keys=True).encode()
        self.model.store.put(f"{self.folder}/{name}/rank-{self.rank}.json", listed)
        shutil.rmtree(folder)
        if self.rank == 0:
            self._prune(best_step)

    def _prune(self, best_step: int | None) -> None:
        """Delete checkpoints older than the newest complete ones, but the best; a list is deleted before its files.

        Credentials may lack the right: then all checkpoints stay, which costs space alone.
        """
        complete = self.complete()
        if len(complete) < KEEP_CHECKPOINTS:
            return
        steps = {name: name.partition("-")[0] for name in self.model.store.names(self.folder)}
        kept = "" if best_step is None else f"{best_step:08d}"
        last = f"{complete[KEEP_CHECKPOINTS - 1].step:08d}"
        old = [name for name, step in steps.items() if step < last and step != kept]
        for name in sorted(old, key=lambda name: not RANK_FILE.fullmatch(name)):
            if not delete_if_allowed(self.model.store, f"{self.folder}/{name}"):
                return

    def _read(self, name: str, ranks: dict[int, str]) -> Checkpoint | None:
        try:
            lists = {rank: json.loads(self.model.store.get(f"{self.folder}/{ranks[rank]}")) for rank in sorted(ranks)}
            first = next(iter(lists.values()))
            if set(lists) != set(range(first["world"])):
                return None
            if any(listed["plan"] != self.header["plan"] for listed in lists.values()):
                return None
            return Checkpoint(
                name=name,
                step=first["step"],
                world_size=first["world"],
                zero_stage=first["zero"],
                files=tuple((rank, entry) for rank, listed in lists.items() for entry in listed["files"]),
            )
        except (FileNotFoundError, ValueError, KeyError, TypeError):  # deleted meanwhile, or damaged
            return None


@contextlib.contextmanager
def resume_training(
    training: TrainingPlan, plan_digest: str, scratch: str
) -> Iterator[tuple["MetricsLog", Checkpoints, str | None]]:
    """Open a training's metrics and checkpoints; yield them and the path of its newest undamaged checkpoint, or None.

    The checkpoint is downloaded once for all workers of a node. Within the context torch.load takes no pickles.
    """
    attempt, zero_stage = distributed.broadcast(uuid.uuid4().hex[:12]), training.settings.zero_stage
    checkpoints = Checkpoints(training.model, plan_digest, zero_stage, attempt)
    try:
        with (
            MetricsLog(training.model, Path(scratch, "logs") if distributed.rank() == 0 else None) as metrics,
            checkpoints,
            weights_only_loading(zero_stage),
        ):
            yield metrics, checkpoints, _restore_newest(training, checkpoints)
    finally:
        if distributed.is_first_of_node():
            shutil.rmtree(checkpoints.node_folder, ignore_errors=True)


def _restore_newest(training: TrainingPlan, checkpoints: Checkpoints) -> str | None:
    for checkpoint in distributed.broadcast(checkpoints.complete() if distributed.rank() == 0 else []):
        check_same_sharding(training, checkpoints, checkpoint)
        if folder := checkpoints.restore(checkpoint):
            return str(folder)
    return None


def check_same_sharding(training: TrainingPlan, checkpoints: Checkpoints, checkpoint: Checkpoint) -> None:
    """Raise UserError for a checkpoint sharded otherwise than this training. At ZeRO stage 0 nothing is sharded."""
    written = (checkpoint.zero_stage, checkpoint.world_size)
    wanted = (training.settings.zero_stage, distributed.world_size())
    if written == wanted or (written[0] == wanted[0] == 0):
        return
    raise UserError(
        f"{checkpoints.where}/{checkpoint.name} was written by {written[1]} workers with ZeRO stage {written[0]}; its "
        f"states cannot be divided among {wanted[1]} with stage {wanted[0]}.\n"
        f"Set {training.key}.workers.num_workers: {written[1]} and {training.key}.zero_stage: {written[0]}, or delete "
        f"{checkpoints.where} to train {training.name} from its beginning."
    )


def divergence_error(training: TrainingPlan, checkpoints: Checkpoints, problem: str, ids: Sequence[str]) -> UserError:
    """Return an error that names the diverged step, its rows, the last good checkpoint, and what to try next."""
    checkpoints.wait()
    good = next(iter(checkpoints.complete()), None)
    return UserError(
        f"The training of {training.name} diverged: {problem}.\n"
        f"Its rows: {', '.join(ids)}\n"
        f"The last good checkpoint: {f'{checkpoints.where}/{good.name}' if good else 'none yet'}\n"
        f"Look at these rows with: speed-ray show {training.run} {training.data}\n"
        f"Things to try: a lower {training.key}.learning_rate, a longer {training.key}.warmup_ratio, "
        f"{training.key}.precision: fp32. In this run it is then trained from its beginning."
    )


class MetricsLog:
    """Logs metrics to `metrics.jsonl` and TensorBoard files beside the model, as rank 0; others have no folder."""

    def __init__(self, model: Model, folder: Path | None) -> None:
        self.model = model
        self.folder = folder
        self._events = SummaryWriter(str(folder)) if folder else None

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *error: object) -> None:
        if self._events is not None:
            self._events.close()

    def add(self, logged: dict[str, Any]) -> None:
        """Add the metrics of one logged step."""
        if self._events is not None:
            for name, value in logged.items():
                self._events.add_scalar(name.replace("eval_", "eval/", 1), value, logged["step"])

    def upload(self, history: list[dict[str, Any]]) -> None:
        """Upload the TensorBoard files of this start, and the whole history, earlier starts included."""
        if self._events is None or self.folder is None:
            return
        self._events.flush()
        for file in self.folder.iterdir():
            self.model.store.upload(f"{self.model.path}/logs/{file.name}", file)
        lines = "".join(json.dumps(logged, sort_keys=True) + "\n" for logged in history)
        self.model.store.put(f"{self.model.path}/metrics.jsonl", lines.encode())
