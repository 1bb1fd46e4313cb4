"""A `speed-ray` job as its user starts it, with the CPU time and the memory of all that it starts."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from speed_ray.storage.run import Run

# The miniature recipe without its alignment: the base model writes, asked with the prompts that all recipes share.
UNALIGNED = ("synthesize.generator=base", "synthesize.revise=false", "prompts=null")


@dataclass
class Usage:
    """What a job and its children used. Memory of the driver alone, in bytes; it is what must not grow with rows."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    driver_rss: int = 0
    exit_code: int | None = None
    by_process: dict[int, float] = field(default_factory=dict)
    driver_cpu: list[tuple[float, float]] = field(default_factory=list)  # (time, CPU seconds of the driver so far)


def module(name: str, *arguments: str, environment: dict[str, str] | None = None) -> str:
    """Run `python -m NAME` to its end; return what it printed. Raises RuntimeError with its last words."""
    ended = subprocess.run([sys.executable, "-m", name, *arguments], env=environment, capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(f"{name} ended with {ended.returncode}:\n{ended.stderr[-3000:]}")
    return ended.stdout


class Running:
    """A `speed-ray` job on its way, its processes watched."""

    def __init__(self, name: str, run: Path | str, overrides: list[str], environment: dict[str, str] | None = None):
        command = [str(Path(sys.executable).parent / "speed-ray"), name, "--recipe", "miniature", "--run", str(run)]
        for override in [*UNALIGNED, *overrides]:
            command += ["--set", override]
        self.name = name
        self.killed = False
        self.began = time.monotonic()
        self.usage = Usage()
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )
        self._stop = threading.Event()
        watched = (psutil.Process(self.process.pid), self.usage, self._stop)
        self._watcher = threading.Thread(target=_watch, args=watched)
        self._watcher.start()

    def kill(self) -> None:
        """SIGKILL the driver and all its children."""
        self.killed = True
        _kill_tree(self.process.pid)

    def ended(self) -> Usage:
        """Wait for the end. Raises RuntimeError with the last words of one that failed by itself."""
        _, errors = self.process.communicate()
        self._stop.set()
        self._watcher.join()
        usage = self.usage
        usage.seconds = time.monotonic() - self.began
        usage.cpu_seconds = sum(usage.by_process.values())
        usage.exit_code = self.process.returncode
        if usage.exit_code and not self.killed:
            raise RuntimeError(f"speed-ray {self.name} ended with {usage.exit_code}:\n{errors.decode()[-3000:]}")
        return usage


def job(name: str, run: Path, overrides: list[str], kill_when: Callable[[], bool] | None = None) -> Usage:
    """Run `speed-ray NAME` to its end, or SIGKILL it and all its children once `kill_when` says so."""
    running = Running(name, run, overrides)
    while running.process.poll() is None:
        time.sleep(0.05)
        if kill_when and kill_when():
            running.kill()
            break
    return running.ended()


def commits(run: Path, artifact: str) -> list[Any]:
    """All commits of an artifact."""
    return list(Run(str(run)).artifact(artifact).commits())


def committed_rows(run: Path, artifact: str, shard_rows: int) -> int:
    """Rows in committed shards, counted by file names alone: cheap enough to poll."""
    folder = run / artifact / "commits"
    return shard_rows * sum(name.endswith(".json") for name in os.listdir(folder)) if folder.is_dir() else 0


def _watch(process: psutil.Process, usage: Usage, stop: threading.Event) -> None:
    while not stop.wait(0.5):
        try:
            usage.driver_rss = max(usage.driver_rss, process.memory_info().rss)
            for member in [process, *process.children(recursive=True)]:
                times = member.cpu_times()
                usage.by_process[member.pid] = times.user + times.system
            usage.driver_cpu.append((time.time(), usage.by_process[process.pid]))
        except psutil.Error:
            continue


def _kill_tree(pid: int) -> None:
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    for member in family:
        try:
            member.send_signal(signal.SIGKILL)
        except psutil.Error:
            continue
    psutil.wait_procs(family, timeout=30)
