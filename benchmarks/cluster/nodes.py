"""Nodes whose GPUs are only numbers: raylets of this machine, killed for real, for engines that need no GPU.

Each node is what a machine of a cluster runs (a raylet and its agents), so what is started on it is a process of its
own, and dies with it. All of it are children of this process: their CPU time and memory are there to be read.
"""

import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.cluster_utils import Cluster

# Two cores start a pool of 64 processes in minutes; Ray gives each one, from its start on.
os.environ.setdefault("RAY_worker_register_timeout_seconds", "900")
os.environ.setdefault("RAY_enable_autoscaler_v2", "1")  # as KubeRay does: demands go to where they can be read
ENGINE = "ray::MapWorker"  # how Ray Data's actors are called in a list of processes


class Nodes:
    """A head without GPUs, and `count` nodes of `gpus` each. Add and kill from the main thread only (Ray's rule)."""

    def __init__(self, count: int, gpus: int) -> None:
        self.gpus = gpus
        # One CPU a node: Ray starts as many Pythons at once, and as many in advance, as a node has CPUs.
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        self.alive = [self.cluster.add_node(num_cpus=1, num_gpus=gpus) for _ in range(count)]

    def __enter__(self) -> "Nodes":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cluster.shutdown()

    @property
    def environment(self) -> dict[str, str]:
        """What makes a driver join."""
        return {"RAY_ADDRESS": self.cluster.address}

    def add(self) -> Any:
        """Let one more node join. Returns once it is a member."""
        self.alive.append(self.cluster.add_node(num_cpus=1, num_gpus=self.gpus))
        return self.alive[-1]

    def kill(self, node: Any) -> None:
        """End a node the hard way: SIGKILL for its raylet, whose workers find themselves without one."""
        self.alive.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)

    def kill_one(self, rng: random.Random) -> None:
        """End any."""
        self.kill(rng.choice(self.alive))

    def leave(self, node: Any) -> None:
        """Do what `ray start --block` does on SIGTERM: drain the node, for 30 s at most, and then end it."""
        node._drain_node_before_shutdown()
        self.kill(node)

    def demanded(self) -> int:
        """How many GPUs Ray asks its autoscaler for, beside those that there are."""
        demands = get_cluster_status(self.cluster.address).resource_demands
        waiting = [bundle for demand in demands.ray_task_actor_demand for bundle in demand.bundles_by_count]
        kept = [bundle for demand in demands.cluster_constraint_demand for bundle in demand.bundles_by_count]
        more = sum(bundle.bundle.get("GPU", 0) * bundle.count for bundle in kept) - self.gpus * len(self.alive)
        return int(max(more, sum(bundle.bundle.get("GPU", 0) * bundle.count for bundle in waiting)))


def engines() -> list[psutil.Process]:
    """The processes of this process's nodes that hold an engine."""
    return [process for process in family() if _title(process).startswith(ENGINE)]


def family() -> list[psutil.Process]:
    """Everything that this process started, and what that started."""
    return psutil.Process().children(recursive=True)


def _title(process: psutil.Process) -> str:
    try:
        return (process.cmdline() or [""])[0]
    except psutil.Error:
        return ""


class Watch:
    """CPU seconds, every few seconds, of the engines and of what Ray itself runs; memory of one engine."""

    EVERY = 5.0  # seconds: a look at a hundred processes costs a tenth of one

    def __init__(self) -> None:
        self.cpu: list[tuple[float, float, float]] = []  # (time, of the engines, of Ray's own processes)
        self.engine_bytes = 0  # of one engine, and of it alone
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(self.EVERY):
            ours = theirs = 0.0
            measured = False
            for process in family():
                try:
                    title = _title(process)
                    times = process.cpu_times()
                    if title.startswith(ENGINE):
                        ours += times.user + times.system
                        if not measured:
                            self.engine_bytes = max(self.engine_bytes, process.memory_full_info().uss)
                            measured = True
                    elif "speed-ray" not in " ".join(process.cmdline()[:3]):
                        theirs += times.user + times.system
                except psutil.Error:
                    continue
            self.cpu.append((time.time(), ours, theirs))


def notes(folder: Path) -> Iterator[tuple[int, list[tuple[float, float]]]]:
    """Each engine's process id and what it noted: (time, tokens decoded until then)."""
    for file in folder.iterdir():
        lines = (line.split() for line in file.read_text().splitlines())
        yield int(file.stem), [(float(line[0]), float(line[1])) for line in lines if len(line) == 2]
