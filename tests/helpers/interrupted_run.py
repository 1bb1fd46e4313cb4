"""`speed-ray run`, interrupted by Ctrl-C at moments that a file lists, in their order; run again until it is through.

    python interrupted_run.py MOMENTS run --recipe miniature --run ...

MOMENTS holds one line for each, "before STAGE" or "inside STAGE", and loses it as it comes. Inside is after the first
commit of a stage that asks a model, after the first complete checkpoint of a training, and before the publication of
what the driver makes by itself. Every start is a process of its own that is forked from this one, which has imported
all that a run needs: that takes longer than most starts then last. Code 0 says that the run is through, and that every
start before the last ended with code 3.

What a run trained is served by a simulated engine, which answers from a row's seed alone, as greedy sampling on one
worker would. It is named by the digest of the weights it stands for, and records hold that name: with other weights
they would be other bytes.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from speed_ray import cli, pipeline
from speed_ray.on_ray import pool, train
from speed_ray.on_ray.progress import StagesProgress
from speed_ray.recipes.engine_settings import SimulatedEngine
from speed_ray.recipes.schema import Recipe
from speed_ray.stages import driver_stage
from speed_ray.storage.run import Run
from speed_ray.storage.shards import Artifact
from speed_ray.storage.trained_models import Model

SLOW = {"prefill": 1e9, "decode": 1e9, "max_tokens_per_stream": 2500.0, "max_concurrency": 4}  # 0.14 s an answer


class Moments:
    """The interruptions that are still to come."""

    def __init__(self, file: Path, sent: int = signal.SIGINT) -> None:
        self.file = file
        self.sent = sent

    def left(self) -> list[str]:
        """All of them, the next first."""
        return self.file.read_text().splitlines()

    def reached(self, moment: str) -> None:
        """Press Ctrl-C, or send another signal, where this moment is the next."""
        first, *others = self.left() or [""]
        if moment == first:
            self.file.write_text("\n".join(others))
            os.kill(os.getpid(), self.sent)

    def training_begins(self, training: train.TrainingJob, train_model: Callable[..., None]) -> None:
        """Press Ctrl-C now, or once it has a complete checkpoint."""
        self.reached(f"before {training.name}")
        if f"inside {training.name}" in self.left()[:1]:
            threading.Thread(target=self._watch, args=(training,), daemon=True).start()

    def _watch(self, training: train.TrainingJob) -> None:
        model = Model(Run(training.run), training.name)
        while not any(name.endswith("/rank-0.json") for name in model.store.names(f"{model.path}/checkpoints")):
            time.sleep(0.02)  # its one worker is still at its first steps
        assert not model.manifest(), f"{training.name} was trained too fast to be interrupted"
        self.reached(f"inside {training.name}")


def stand_in(run: Run, recipe: Recipe, name: str) -> SimulatedEngine:
    """An engine in place of the vLLM that would serve a trained model."""
    digest = Model(run, name).published()["digest"]
    return SimulatedEngine(engine="simulated", model=f"{name}-{digest}", **SLOW)


def interrupt(moments: Moments) -> None:
    """Put the moments where the pipeline begins to make something, and where it has begun."""
    first(pool, "execute", lambda run, *steps: moments.reached(f"before {steps[0].plan.stage}"))
    first(StagesProgress, "add", lambda progress, counts: moments.reached(f"inside {next(iter(counts), None)}"))
    first(driver_stage, "publish_rows", lambda artifact, *work: moments.reached(f"before {artifact.name}"))
    first(Artifact, "publish", lambda artifact, plan: moments.reached(f"inside {artifact.name}"))
    first(pipeline, "train_on_ray", moments.training_begins)


def first(owner: Any, name: str, act: Callable[..., None]) -> None:
    """Let every call of a function do something else before."""
    function = getattr(owner, name)

    def both(*args: Any) -> Any:
        act(*args)
        return function(*args)

    setattr(owner, name, both)


def main() -> None:
    """Start the command again and again until it is through."""
    moments = Moments(Path(sys.argv.pop(1)))
    pipeline.generator_with_trained_weights = stand_in
    interrupt(moments)
    code = 3
    while code == 3:
        child = os.fork()
        if not child:
            cli.main()
            sys.exit()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == 0 and not moments.left(), f"a start ended with code {code} before it came to {moments.left()}"


if __name__ == "__main__":
    main()
