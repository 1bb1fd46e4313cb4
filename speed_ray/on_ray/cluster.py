"""`speed-ray head` and `speed-ray join`: this machine as a node of a Ray cluster, for as long as the command runs.

Each is `ray start --block` as a child, behind a token (auth_token.py). What ends the command ends this node's own
processes; `ray stop` would end every Ray on the machine.
"""

import ctypes
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from speed_ray.errors import Interrupted, UserError
from speed_ray.on_ray import auth_token, serve_env

TICK = 0.2  # seconds between two looks at a node that starts
TOLD = 65536  # bytes of what `ray start` says; it says no more than a page
STARTED = "Ray runtime started."
ADDRESS = re.compile(r"ray start --address='([^']+)'")
DASHBOARD = re.compile(r"RAY_API_SERVER_ADDRESS='([^']+)'")
ENDED = re.compile(r"^\s*(\w+ \[exit code=[^\]]+\])", re.MULTILINE)
PR_SET_PDEATHSIG = 1
WRONG_OPTION = 2  # click's exit code


@dataclass(frozen=True)
class Node:
    """What a machine brings into a cluster, where it is not what Ray finds there."""

    cpus: int | None = None
    gpus: int | None = None
    labels: str | None = None  # key=value,key=value
    temp_dir: str | None = None  # of sockets and logs
    options: tuple[str, ...] = ()  # more of `ray start`

    def arguments(self) -> list[str]:
        """As `ray start` takes them; what comes last wins."""
        named = {
            "num-cpus": self.cpus,
            "num-gpus": self.gpus,
            "labels": self.labels,
            "temp-dir": self.temp_dir and os.path.abspath(self.temp_dir),
        }
        return [*(f"--{name}={value}" for name, value in named.items() if value is not None), *self.options]


def head(port: int, dashboard_port: int, node: Node) -> None:
    """Begin a cluster, and end it at Ctrl-C or SIGTERM. Raises UserError, or Interrupted when Ray ends by itself."""
    for option, number in (("--port", port), ("--dashboard-port", dashboard_port)):
        _check_free(option, number)
    if auth_token.is_asked_for():
        auth_token.make()
    ports = {
        "port": port,
        "dashboard-port": dashboard_port,
        # Nothing here uses Ray's client, and its port cannot be left out: on 10001 two heads would end each other.
        "ray-client-server-port": _free_port(),
    }
    _keep(["--head", *(f"--{name}={number}" for name, number in ports.items()), *node.arguments()], _of_a_head)


def join(address: str, node: Node) -> None:
    """Bring this machine into a cluster, and leave it at Ctrl-C or SIGTERM. Raises UserError or Interrupted."""
    if auth_token.is_asked_for():
        auth_token.require()
    _keep([f"--address={address}", *node.arguments()], lambda said: f"This node is part of {address}. Ctrl-C ends it.")


def _keep(options: list[str], greeting: Callable[[str], str]) -> None:
    """Hold a node up until it is told to end, or ends."""
    print("speed-ray: starting Ray", file=sys.stderr, flush=True)
    ray = str(Path(sys.executable).with_name("ray"))
    # Several nodes on one machine have to find ports of their own.
    ports = ["--dashboard-agent-listen-port=0", "--min-worker-port=0", "--max-worker-port=0"]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [ray, "start", "--block", "--log-style=pretty", "--log-color=false", *ports, *options],
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a terminal's Ctrl-C comes once, through this process
            preexec_fn=_end_with_this_process,
        )
        asked_to_end = _pass_on_signals(process)
        if _is_started(process, said):
            print(greeting(_text(said)), flush=True)
        elif not asked_to_end:
            raise _not_started(process.returncode, said)
        process.wait()
        if not asked_to_end:
            ended = ", ".join(dict.fromkeys(ENDED.findall(_text(said)))) or "without a word"
            raise Interrupted(
                f"this node's Ray ended by itself: {ended}. A node that was out of reach for too long is given up by "
                "its cluster and ends.\nTo bring it back, run the same command again."
            )


def _environment() -> dict[str, str]:
    """Have Ray ask for a token, send no statistics, serve by HAProxy, unless told otherwise; `python` is this one."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    ours = {auth_token.MODE: "token", "RAY_USAGE_STATS_ENABLED": "0", **serve_env.environment(), **serve_env.ports()}
    return {**ours, **os.environ, "PATH": path}


def _end_with_this_process() -> None:
    # Popen's caller is the main thread, which lives as long as the process: engines/parent_watchdog.py has no cause.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _pass_on_signals(process: "subprocess.Popen[bytes]") -> list[int]:
    """Send Ctrl-C and SIGTERM on to the child, which drains its node at a SIGTERM; return those that came."""
    came: list[int] = []

    def pass_on(number: int, frame: Any) -> None:
        came.append(number)
        process.send_signal(number)

    signal.signal(signal.SIGINT, pass_on)
    signal.signal(signal.SIGTERM, pass_on)
    return came


def _is_started(process: "subprocess.Popen[bytes]", said: BinaryIO) -> bool:
    while STARTED not in _text(said):
        if process.poll() is not None:
            return False
        time.sleep(TICK)
    return True


def _not_started(code: int, said: BinaryIO) -> UserError | Interrupted:
    what = f"Ray did not start here:\n{_last_words(said)}"
    if code == WRONG_OPTION or "AuthenticationError" in _text(said):
        return UserError(what)
    return Interrupted(f"{what}\nRun the same command again when the head is there and the machine is less busy.")


def _text(said: BinaryIO) -> str:
    return os.pread(said.fileno(), TOLD, 0).decode(errors="replace")  # the child writes at the file's one position


def _last_words(said: BinaryIO) -> str:
    lines = [line.strip() for line in _text(said).splitlines() if line.strip()]
    return "\n".join(f"  {line}" for line in lines[-3:])


def _of_a_head(said: str) -> str:
    address, dashboard = _found(ADDRESS, said), _found(DASHBOARD, said)
    if not auth_token.is_asked_for():
        needed, prefix = f"{auth_token.MODE}={os.environ[auth_token.MODE]}: who reaches it runs code here", ""
    elif os.environ.get(auth_token.VALUE):
        needed, prefix = f"with the same {auth_token.VALUE}", f"{auth_token.MODE}=token "
    else:
        needed, prefix = f"with a copy of {auth_token.path()}", f"{auth_token.MODE}=token "
        if os.environ.get(auth_token.FILE):
            prefix += f"{auth_token.FILE}={shlex.quote(str(auth_token.path()))} "
    return (
        f"This is the head of a cluster at {address}. Ctrl-C ends it.\n"
        f"Another machine joins, {needed}:\n"
        f"  speed-ray join {address}\n"
        "A job is submitted from the project's folder, and its run folder is one that every node sees:\n"
        f"  {prefix}ray job submit --address {dashboard} --working-dir . -- "
        "python jobs/run.py --recipe miniature --run /shared/runs/first\n"
        f"The dashboard is at {dashboard}."
    )


def _found(pattern: re.Pattern[str], said: str) -> str:
    match = pattern.search(said)
    return match[1] if match else "(Ray does not say)"


def _check_free(option: str, port: int) -> None:
    """Ray would wait half a minute for a port that is taken, or quietly take another."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise UserError(f"{option} {port}: {error}. Choose another.") from None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
