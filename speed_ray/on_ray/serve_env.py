"""Set the environment by which Ray Serve answers through HAProxy, instead of its own proxy in Python.

With 64 clients of one text a request, MiniLM's endpoint embedded 0.88 of a bare encode's texts a second behind HAProxy
and 0.60 behind Ray's own proxy, which takes 5.5 ms of CPU a request where the model takes 6 (benchmarks/serving.py).
Ray 2.60 brings HAProxy and writes its configuration; replicas answer HTTP themselves then. A request whose replica is
lost goes to another one, as long as it fits HAProxy's buffer: an embedding that is computed twice does no harm.
"""

import os
import socket
import sys
from pathlib import Path

from speed_ray.errors import UserError

# For the replicas, and for Serve's own proxy in Python, which stays as the last resort: serving/http_errors.py.
CALLBACK = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "speed_ray.serving.http_errors:middlewares"}
PORT_BLOCKS = range(20_000, 32_000, 100)  # below the ports that Linux gives to connections
BUFFER_BYTES = 65_536  # HAProxy has two for each connection
DRAINING_SECONDS = 5  # for which a replica that is to end goes on answering; HAProxy knows of it after a tenth of one
START_SECONDS = 60  # in which HAProxy must be up; Serve gives it five, and a busy machine takes more


def environment() -> dict[str, str]:
    """Return what the processes of a Ray must have in their environment from their start on."""
    return {
        **CALLBACK,
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(Path(sys.executable).parent / "speed-ray-haproxy"),
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(BUFFER_BYTES),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(DRAINING_SECONDS),
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": str(START_SECONDS),
    }


def ports() -> dict[str, str]:
    """Return the environment by which a Ray's replicas listen where no other Ray's on this machine do.

    HAProxy knows a replica by its port alone, and by default the ports of all Rays are the same: that of a replica
    that was lost answered with another Ray's model (tests/faults/test_replica_killed.py).
    """
    for number in range(os.getpid(), os.getpid() + len(PORT_BLOCKS)):  # two commands that start at once differ
        first = PORT_BLOCKS[number % len(PORT_BLOCKS)]
        last = first + PORT_BLOCKS.step - 1
        try:
            check_port_free("", "", first)
            check_port_free("", "", last)
            break
        except UserError:
            continue
    return {
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(last - 1),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(last),
    }


def files(folder: Path) -> dict[str, str]:
    """Return the environment by which HAProxy's files lie in a folder, not where all users of a machine meet."""
    names = {
        "CONFIG_FILE_LOC": "haproxy.cfg",
        "SOCKET_PATH": "admin.sock",
        "SERVER_STATE_BASE": "",
        "SERVER_STATE_FILE": "server-state",
        "METRICS_SOCKET_PATH": "metrics.sock",
    }
    return {f"RAY_SERVE_HAPROXY_{key}": str(folder / name) for key, name in names.items()}


def check_port_free(option: str, host: str, port: int) -> None:
    """Raise UserError where a port is taken: Ray would wait half a minute for it, or quietly take another."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(f"{option} {port}: {error.strerror}. Choose another.") from None
