"""Start the workers of a training as forks of one process, which has imported what each of them needs.

Those imports take a new process 12 to 18 s of CPU, and most trainings of tests one. What torchrun does is tested where
a test starts it, by `tiny_training.command`.
"""

import multiprocessing
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from speed_ray.recipes.schema import Recipe
from speed_ray.storage.run import Run
from tests.helpers.tiny_serving import free_port
from tests.helpers.tiny_training import training_arguments

FORKS = multiprocessing.get_context("forkserver")
IMPORTED = (
    "deepspeed", "speed_ray.training.trl_trainer", "speed_ray.training.contrastive.loop",
    "speed_ray.training.__main__", "tests.helpers.embedding_worker", __name__,
)  # fmt: skip
FORKS.set_forkserver_preload(list(IMPORTED))


@dataclass(frozen=True)
class Workers:
    """The workers of one training, in the order of their ranks; all write to one file."""

    processes: list[ForkServerProcess]
    output: Path

    def wait(self) -> int:
        """Wait for all, and end the others where one fails, as torchrun does. Returns the first exit code but 0."""
        code, running = 0, {process.sentinel: process for process in self.processes}
        while running:
            for ended in [running.pop(sentinel) for sentinel in wait(running)]:
                ended.join()
                code = code or ended.exitcode or 0
            if code:
                self.kill()
        return code

    def kill(self) -> None:
        """End all at once, the hard way."""
        for process in self.processes:
            process.kill()

    def said(self) -> str:
        """All that they printed, to either stream."""
        return self.output.read_text()


def start_training(recipe: Recipe, run: Run, model: str, count: int) -> Workers:
    """Begin to train a model of a run on so many workers."""
    arguments = training_arguments(recipe, run, model)
    return start_workers(Path(f"{run.uri}-{model}.log"), count, train_by_command, arguments)


def start_workers(output: Path, count: int, act: Callable[..., None], *arguments: Any) -> Workers:
    """Call a function of a module in each worker, with the variables that torchrun sets."""
    shared = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    output.write_text("")
    processes = []
    for rank in range(count):
        environment = {name: str(value) for name, value in {"RANK": rank, "LOCAL_RANK": rank, **shared}.items()}
        processes.append(FORKS.Process(target=_work, args=(str(output), environment, act, *arguments)))
        processes[-1].start()
    return Workers(processes, output)


def train_by_command(arguments: list[str]) -> None:
    """Train as `python -m speed_ray.training` with these arguments does; ends the process."""
    from speed_ray.training.__main__ import app

    sys.argv = ["speed_ray.training", *arguments]
    app()


def _work(output: str, environment: dict[str, str], act: Callable[..., None], *arguments: Any) -> None:
    import torch

    file = os.open(output, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.environ.update(environment)
    torch.set_num_threads(1)
    act(*arguments)
