"""A training begun again: which checkpoint it goes on from, and what its user is told when it went nowhere."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from speed_ray.errors import UserError
from speed_ray.training import distributed
from speed_ray.training.checkpoints import Checkpoint, Checkpoints
from speed_ray.training.plan import TrainingPlan


@contextlib.contextmanager
def resumed(training: TrainingPlan, checkpoints: Checkpoints) -> Iterator[str | None]:
    """Give a local copy of the newest checkpoint that is whole, one for all workers of a machine; None for none."""
    # Two nodes may share a temp dir, as Ray nodes on one machine do: each has a copy of its own.
    node = Path(tempfile.gettempdir()) / f"speed_ray-resumed-{checkpoints.attempt}-{distributed.first_of_node()}"
    try:
        yield _fetched(training, checkpoints, node)
    finally:
        if distributed.is_first_of_node():
            shutil.rmtree(node, ignore_errors=True)


def _fetched(training: TrainingPlan, checkpoints: Checkpoints, node: Path) -> str | None:
    for checkpoint in distributed.broadcast(checkpoints.complete() if distributed.rank() == 0 else []):
        check_fits(training, checkpoints, checkpoint)
        folder = node / checkpoint.name
        if distributed.all_agree(checkpoints.download(checkpoint, folder) if distributed.is_first_of_node() else True):
            return str(folder)
    return None


def check_fits(training: TrainingPlan, checkpoints: Checkpoints, checkpoint: Checkpoint) -> None:
    """Refuse states that these workers cannot take over. At stage 0 every worker holds all of them."""
    wrote, asked = (checkpoint.zero, checkpoint.world), (training.settings.zero, distributed.world_size())
    if wrote == asked or (wrote[0] == asked[0] == 0):
        return
    raise UserError(
        f"{checkpoints.where}/{checkpoint.name} was written by {wrote[1]} workers with ZeRO stage {wrote[0]}; its "
        f"states cannot be shared out among {asked[1]} with stage {asked[0]}.\n"
        f"Set {training.key}.workers.count: {wrote[1]} and {training.key}.zero: {wrote[0]}, or delete "
        f"{checkpoints.where} to train {training.name} from its beginning."
    )


def diverged(training: TrainingPlan, checkpoints: Checkpoints, what: str, row_ids: Sequence[str]) -> UserError:
    """Say which step has no number for a loss, on which rows, and where to go from there."""
    checkpoints.wait()
    good = next(iter(checkpoints.complete()), None)
    return UserError(
        f"The training of {training.name} diverged: {what}.\n"
        f"Its rows: {', '.join(row_ids)}\n"
        f"The last good checkpoint: {f'{checkpoints.where}/{good.name}' if good else 'none yet'}\n"
        f"Look at these rows with: speed-ray show {training.run} {training.data}\n"
        f"Usual ways out: a lower {training.key}.learning_rate, a longer {training.key}.warmup, "
        f"{training.key}.precision: fp32; a changed recipe wants another --run folder."
    )
