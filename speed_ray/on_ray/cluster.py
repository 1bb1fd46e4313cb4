"""Run this machine as a node of a Ray cluster, for as long as `speed-ray head` or `speed-ray join` runs.

Each is `ray start --block` as a child, which asks for a token: who holds it runs code on every node. What ends the
command ends this node's own processes; `ray stop` would end every Ray on the machine.
"""

import contextlib
import ctypes
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from speed_ray.errors import Interrupted, UserError
from speed_ray.on_ray import serve_env

MODE, TOKEN, TOKEN_FILE = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"  # the variables that Ray reads
POLL_SECONDS = 0.2
STARTED = "This command will now block forever"  # the last that `ray start --block` prints of a node that is up
OUTPUT_BYTES = 65_536  # of `ray start`, which prints a page at most
PR_SET_PDEATHSIG = 1
WRONG_OPTION = 2  # click's exit code


def head(port: int, dashboard_port: int, options: list[str]) -> None:
    """Start a cluster and end it at Ctrl-C or SIGTERM. Raises UserError, or Interrupted when Ray ends by itself."""
    serve_env.check_port_free("--port", "", port)
    serve_env.check_port_free("--dashboard-port", "", dashboard_port)
    ensure_token(create=True)
    with socket.socket() as probe:  # for Ray's client, which has to have a port: on 10001 two heads end each other
        probe.bind(("", 0))
        client_port = probe.getsockname()[1]
    ports = {"port": port, "dashboard-port": dashboard_port, "ray-client-server-port": client_port}
    _run_node(["--head", *(f"--{name}={number}" for name, number in ports.items()), *options], _describe_head)


def join(address: str, options: list[str]) -> None:
    """Add this machine to a cluster until Ctrl-C or SIGTERM. Raises UserError or Interrupted."""
    _, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise UserError(f"join {address}: name the head as host:port; `speed-ray head` prints both.")
    ensure_token(create=False)
    _run_node([f"--address={address}", *options], lambda _: f"This node is part of {address}. Ctrl-C ends it.")


def node_options(
    cpus: int | None, gpus: int | None, labels: str | None, temp_dir: str | None, more: list[str] | None
) -> list[str]:
    """Return what a machine brings into a cluster as options of `ray start`, of which the last wins."""
    folder = temp_dir and os.path.abspath(temp_dir)
    named = {"num-cpus": cpus, "num-gpus": gpus, "labels": labels, "temp-dir": folder}
    return [*(f"--{name}={value}" for name, value in named.items() if value is not None), *(more or ())]


def token_path() -> Path:
    """Return where Ray reads the token from, when it is not in the environment itself."""
    return Path(os.environ.get(TOKEN_FILE) or Path.home() / ".ray" / "auth_token")


def ensure_token(create: bool) -> None:
    """Check that this machine has a token that its owner alone can read, and make one for a cluster that begins.

    `ray get-auth-token --generate` (2.60) would let everybody read it, and overlooks RAY_AUTH_TOKEN_PATH.
    Raises UserError.
    """
    if not _needs_token() or os.environ.get(TOKEN):
        return
    path = token_path()
    try:
        if create and not path.exists():
            _make_token(path)
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
        token = path.read_text().strip()
    except OSError as error:
        raise UserError(
            f"there is no token at {path} that this user alone can read ({error.strerror}): copy the head's there, or "
            f"name another file by {TOKEN_FILE}."
        ) from None
    if not token:
        raise UserError(f"{path} is empty. Delete it, and copy the head's there or have one made by `speed-ray head`.")


def _needs_token() -> bool:
    return os.environ.get(MODE, "token") == "token"


def _make_token(path: Path) -> None:
    """Write a token under another name first: a process that starts at the same time must not find half of it."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    unfinished = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    try:
        with open(unfinished, "x", opener=_open_private) as file:
            file.write(secrets.token_hex(32))
        with contextlib.suppress(FileExistsError):
            os.link(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _run_node(options: list[str], describe: Callable[[str], str]) -> None:
    """Keep a node up until a signal ends it, or Ray does."""
    print("speed-ray: starting Ray", file=sys.stderr, flush=True)
    ray = str(Path(sys.executable).with_name("ray"))
    # Several nodes on one machine have to find ports of their own.
    ports = ["--dashboard-agent-listen-port=0", "--min-worker-port=0", "--max-worker-port=0"]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [ray, "start", "--block", "--log-style=pretty", "--log-color=false", *ports, *options],
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a terminal's Ctrl-C comes once, through this process
            # Popen's caller is the main thread, which lives as long as the process.
            preexec_fn=lambda: ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
        )

        def output() -> str:
            return os.pread(log.fileno(), OUTPUT_BYTES, 0).decode(errors="replace")  # the child moves the position

        signals = _forward_signals(process)
        while not (started := STARTED in output()) and process.poll() is None:
            time.sleep(POLL_SECONDS)
        if started:
            print(describe(output()), flush=True)
        code = process.wait()
        if not signals:
            raise _ended_by_itself(code, started, output())


def _environment() -> dict[str, str]:
    """Return the environment: Ray asks for a token, sends no statistics, serves by HAProxy, and `python` is this one.

    What the user has set stays.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    ours = {MODE: "token", "RAY_USAGE_STATS_ENABLED": "0", **serve_env.environment(), **serve_env.ports()}
    return {**ours, **os.environ, "PATH": path}


def _forward_signals(process: "subprocess.Popen[bytes]") -> list[int]:
    """Send Ctrl-C and SIGTERM on to the child, which drains its node at a SIGTERM; return those that came."""
    received: list[int] = []

    def forward(number: int, frame: Any) -> None:
        received.append(number)
        process.send_signal(number)

    signal.signal(signal.SIGINT, forward)
    signal.signal(signal.SIGTERM, forward)
    return received


def _ended_by_itself(code: int, started: bool, output: str) -> UserError | Interrupted:
    last = "\n".join(f"  {line.strip()}" for line in [line for line in output.splitlines() if line.strip()][-3:])
    if started:
        return Interrupted(
            f"this node's Ray ended by itself:\n{last}\nA cluster gives up a node that was out of reach for too long, "
            "and the node ends.\nTo bring it back, run the same command again."
        )
    if code == WRONG_OPTION or "AuthenticationError" in output:
        return UserError(f"Ray did not start here:\n{last}")
    return Interrupted(
        f"Ray did not start here:\n{last}\n"
        "Run the same command again when the head is there and the machine is less busy."
    )


def _describe_head(output: str) -> str:
    addresses = [re.search(rf"{name}='([^']+)'", output) for name in ("--address", "RAY_API_SERVER_ADDRESS")]
    address, dashboard = (found[1] if found else "(Ray does not say)" for found in addresses)
    token = f"the head's token ({TOKEN}, or a copy of {token_path()})" if _needs_token() else "no token: it is open"
    return (
        f"This is the head of a cluster at {address}. Ctrl-C ends it. Its dashboard is at {dashboard}.\n"
        f"Another machine joins with {token}:\n"
        f"  speed-ray join {address}\n"
        "A job is submitted from the project's folder, and its run folder is one that every node sees:\n"
        f"  {MODE}={os.environ.get(MODE, 'token')} ray job submit --address {dashboard} --working-dir . -- "
        "python jobs/run.py --recipe miniature --run /shared/runs/first"
    )
