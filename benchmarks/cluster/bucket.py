"""An S3 bucket on this machine (moto's) that counts what it is asked, and misbehaves as it is told."""

import os
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

NAME = "bucket"


@dataclass(frozen=True)
class Trouble:
    """What a store does now and then, as shares of its answers."""

    refused: float = 0.0  # 503, and nothing is done
    lost: float = 0.0  # it is done, and the connection breaks before the answer
    seconds: float = 0.0  # of waiting, before each


class Bucket:
    """Serves until it is left; names itself to all that is started meanwhile, as a user's environment would."""

    def __init__(self, seed: int = 0) -> None:
        self.requests: Counter[str] = Counter()  # by verb, listings apart
        self.trouble = Trouble()
        self._draws = random.Random(seed)
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=_Quiet)

    def __enter__(self) -> "Bucket":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        os.environ.update(
            AWS_ENDPOINT_URL=f"http://127.0.0.1:{self._server.server_port}",
            AWS_ACCESS_KEY_ID="nobody",
            AWS_SECRET_ACCESS_KEY="nothing",
            AWS_REGION="us-east-1",
        )
        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket=NAME)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        verb = "LIST" if "list-type" in environ["QUERY_STRING"] else environ["REQUEST_METHOD"]
        self.requests[verb] += 1
        trouble, drawn = self.trouble, self._draws.random()
        time.sleep(trouble.seconds)
        if drawn < trouble.refused:
            start("503 Slow Down", [("Content-Length", "0")])
            return []
        answer: Iterable[bytes] = self._moto(environ, start)
        if drawn > 1 - trouble.lost:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return answer


class _Quiet(MotoRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        """Keep quiet about each request, and about connections that break as they should."""
