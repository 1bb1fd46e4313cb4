"""The environment by which Ray Serve answers through HAProxy, instead of its own proxy in Python.

That proxy costs more than MiniLM does: benchmarks/serving.py has 64 clients with one text a request, served 0.60 of
a bare encode's texts a second behind it, 0.88 behind HAProxy. Ray 2.60 brings HAProxy and writes its configuration;
replicas answer HTTP themselves then. A request whose replica is lost is asked of another one, as long as it fits
HAProxy's buffer: an embedding that is asked for twice does no harm.
"""

import os
import socket
import sys
from pathlib import Path

# For the replicas, and for Serve's own proxy in Python, which stays as the last resort: serving/proxy.py.
CALLBACK = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "speed_ray.serving.proxy:middlewares"}
BLOCKS = range(20_000, 32_000, 100)  # of ports, below those that Linux gives to connections
BUFFER = 65_536  # bytes; HAProxy has two for each connection
DRAINING = 5  # seconds for which a replica that is to end goes on answering: HAProxy hears of it in a tenth of one
PATIENCE = 60  # seconds in which HAProxy must be up; Serve gives it five, and a busy machine takes more


def environment() -> dict[str, str]:
    """Return what the processes of a Ray must have in their environment from their start on."""
    return {
        **CALLBACK,
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(Path(sys.executable).parent / "speed-ray-haproxy"),
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(BUFFER),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(DRAINING),
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": str(PATIENCE),
    }


def ports() -> dict[str, str]:
    """Return the environment by which a Ray's replicas listen where no other Ray's on this machine do.

    HAProxy knows a replica by its port alone. By default all begin at 30000, and all heads' own proxies share 8500:
    the port of a replica that was lost answered with another Ray's model.
    """
    for number in range(os.getpid(), os.getpid() + len(BLOCKS)):  # two commands that start at once differ
        first = BLOCKS[number % len(BLOCKS)]
        last = first + BLOCKS.step - 1
        if _free(first) and _free(last):
            break
    return {
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(last - 1),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(last),
    }


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
        return True


def places(folder: Path) -> dict[str, str]:
    """Return the environment by which HAProxy's files lie in `folder`, not where all users of a machine meet."""
    return {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
    }
