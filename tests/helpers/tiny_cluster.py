"""What tests of clusters share: nodes that our own commands start, on ports and in folders of their own, and jobs."""

import socket
import sys
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.helpers.paths import ROOT

BIN = Path(sys.executable).parent


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@dataclass(frozen=True)
class Head:
    """`speed-ray head`, which `drive` starts with this one's `environment`: its token lies in its folder."""

    folder: Path  # short: a Unix socket's path holds 107 characters
    cpus: int
    options: tuple[str, ...] = ()  # of `ray start`
    host: str = "127.0.0.1"
    ports: list[int] = field(default_factory=lambda: free_ports(2))

    @property
    def address(self) -> str:
        """Where nodes and drivers join."""
        return f"{self.host}:{self.ports[0]}"

    @property
    def jobs(self) -> str:
        """Where jobs are submitted."""
        return f"http://127.0.0.1:{self.ports[1]}"

    @property
    def token(self) -> Path:
        """The file."""
        return self.folder / "token"

    @property
    def environment(self) -> dict[str, str]:
        """Of everything that may use the cluster."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token)}

    def arguments(self, command: str) -> list[str]:
        """What follows `speed-ray` on a command line."""
        ports = ["--port", str(self.ports[0]), "--dashboard-port", str(self.ports[1])]
        own = ["--cpus", str(self.cpus), "--temp-dir", str(self.folder)]
        return [command, *ports, *own, "--", f"--node-ip-address={self.host}", *self.options]


@dataclass(frozen=True)
class Joined:
    """`speed-ray join`."""

    head: Head
    cpus: int = 2
    host: str = "127.0.0.1"
    name: str = field(default_factory=lambda: uuid.uuid4().hex[:6])

    def arguments(self, command: str) -> list[str]:
        """What follows `speed-ray` on a command line."""
        # A folder of its own: nodes that start at the same time may choose the same names for their sockets.
        own = ["--cpus", str(self.cpus), "--temp-dir", str(self.head.folder / self.name)]
        return [command, self.head.address, *own, "--", f"--node-ip-address={self.host}"]


@dataclass(frozen=True)
class Submitted:
    """`ray job submit`, which `drive` starts with `SUBMIT` as its program."""

    head: Head
    words: tuple[str, ...]  # the job's command line

    @classmethod
    def script(cls, head: Head, name: str, job: Any, *more: str) -> "Submitted":
        """A job for the run of a conftest.Job: all by jobs/run.py, any other by the package."""
        command, *options = job.arguments(name)
        program = ["jobs/run.py"] if command == "run" else ["-m", "speed_ray", command]
        return cls(head, ("python", *program, *options, *more))

    def arguments(self, command: str) -> list[str]:
        """What follows `ray` on a command line."""
        submit = ["job", "submit", "--address", self.head.jobs, "--working-dir", str(ROOT)]
        return [*submit, "--", *self.words]


SUBMIT = [str(BIN / "ray")]


def named(node: Any, part: str) -> list[psutil.Process]:
    """A node's processes with this in their command line."""
    found = []
    for process in node.left():
        with suppress(psutil.Error):  # it has just ended
            if part in " ".join(process.cmdline()):
                found.append(process)
    return found


def lose(node: Any) -> None:
    """Kill every process of a node, as a machine that loses power."""
    while processes := node.left():
        for process in processes:
            process.kill()
    node.process.wait()
