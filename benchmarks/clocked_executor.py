"""vLLM's executors with a clock: one line for each step of the model, when it was begun and when that call was back.

For rivals that do not tell when their engine worked. An executor's class is all that vLLM takes from outside into the
process of its EngineCore, and only there is this module imported: a hook in every Ray worker would slow them all.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vllm.v1.executor.multiproc_executor import MultiprocExecutor
from vllm.v1.executor.uniproc_executor import UniProcExecutor

CLOCK = "SPEED_RAY_BENCHMARK_CLOCK"  # the environment variable that names the file


class OneProcess(UniProcExecutor):
    """The model in the process of the EngineCore, as ours is."""

    def execute_model(self, *arguments: Any, **named: Any) -> Any:
        """Run one step of the model."""
        return _timed(super().execute_model, *arguments, **named)


class OwnProcess(MultiprocExecutor):
    """The model in a process of its own, as vLLM has it on a CPU by itself."""

    def execute_model(self, *arguments: Any, **named: Any) -> Any:
        """Have one step of the model run."""
        return _timed(super().execute_model, *arguments, **named)


def _timed(step: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    began = time.time()
    output = step(*arguments, **named)
    with open(os.environ[CLOCK], "a") as file:
        file.write(f"{began} {time.time()}\n")
    return output


def seconds(clock: Path) -> float:
    """From the first step's beginning to the last one's end."""
    began, ended = zip(*(map(float, line.split()) for line in clock.read_text().splitlines()), strict=True)
    return max(ended) - min(began)
