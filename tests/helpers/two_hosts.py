"""Two hosts on one machine, each with an address and a Ray node of its own, and a link between them that can be cut.

They are network namespaces. Processes and files are the machine's own, so a run folder is on storage that both hosts
see all the time: what is cut is Ray, and the workers of a training from each other.
"""

import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.helpers.tiny_cluster import BIN, Head, Joined

# Ray gives a node up that has not answered five times, 10 s each; here after 2 s each. A busy machine takes a second.
SOON = {
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}


@dataclass(frozen=True)
class Host:
    """A namespace, its end of the link, and its address."""

    name: str
    device: str
    address: str

    @property
    def speed_ray(self) -> list[str]:
        """The program, on this host."""
        return ["nsenter", f"--net=/run/netns/{self.name}", str(BIN / "speed-ray")]

    @property
    def environment(self) -> dict[str, str]:
        """Of a node: PyTorch would look for its interface by the machine's name, which is that of another network."""
        # `has_given_up` reads the log, and a test of this process may have asked for a silent one.
        return {**SOON, "GLOO_SOCKET_IFNAME": self.device, "RAY_BACKEND_LOG_LEVEL": "info"}

    def set_link(self, state: str) -> None:
        """Set this end of the link up or down; the other end sees it."""
        _ip("-n", self.name, "link", "set", self.device, state)


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Make them, and leave nothing of them. Raises OSError or CalledProcessError where that is not permitted."""
    mark = uuid.uuid4().hex[:8]
    first, second = (Host(f"speed-ray-{mark}-{n}", f"sr{mark}{n}", f"10.77.0.{n}") for n in (1, 2))
    try:
        for host in (first, second):
            _ip("netns", "add", host.name)
            _ip("-n", host.name, "link", "set", "lo", "up")
        link = ["link", "add", first.device, "netns", first.name, "type", "veth"]
        _ip(*link, "peer", second.device, "netns", second.name)
        for host in (first, second):
            _ip("-n", host.name, "addr", "add", f"{host.address}/24", "dev", host.device)
            host.set_link("up")
        yield first, second
    finally:
        for host in (first, second):
            subprocess.run(["ip", "netns", "delete", host.name], capture_output=True)


@dataclass(frozen=True)
class Cluster:
    """A head on the first host and a node on the second, of two CPUs each."""

    drive: Callable[..., Any]
    head: Head
    hosts: tuple[Host, Host]

    def begin(self) -> Any:
        """Start both; return the second one's process."""
        first, _ = self.hosts
        head = self.drive(self.head, "head", program=first.speed_ray, **self.head.environment, **first.environment)
        head.wait_until(lambda: "This is the head" in head.said())
        return self.join()

    def join(self) -> Any:
        """Start the node on the second host."""
        _, second = self.hosts
        joined = Joined(self.head, host=second.address)
        node = self.drive(joined, "join", program=second.speed_ray, **self.head.environment, **second.environment)
        node.wait_until(lambda: "This node is part of" in node.said())
        return node

    def cut(self) -> None:
        """Take the link away."""
        self.hosts[1].set_link("down")

    def mend(self) -> None:
        """Give it back."""
        self.hosts[1].set_link("up")

    def has_given_up(self) -> bool:
        """Whether the head takes the second host's node for dead."""
        log = self.head.folder / "session_latest" / "logs" / "gcs_server.out"
        return "remaining checks 0" in log.read_text(errors="replace")

    def submit(self, job: Any, command: str) -> Any:
        """Start a driver beside the head, where `ray job submit` starts it."""
        first, _ = self.hosts
        return self.drive(
            job, command, program=first.speed_ray, RAY_ADDRESS=self.head.address, **self.head.environment
        )


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
