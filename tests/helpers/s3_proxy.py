"""A proxy before an S3 server: it spoils what a test tells it to (slow, refused, lost answers), or stands for GCS."""

import http.client
import http.server
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from wsgiref.types import StartResponse, WSGIEnvironment

import boto3
from moto.server import ThreadedMotoServer

DROP = "drop"  # what was asked is done, and nobody is told

EXPIRED = (400, b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>")


@dataclass(frozen=True)
class Asked:
    """One request: its number, from 0, and what it says; names of headers in small letters."""

    number: int
    verb: str
    path: str
    headers: dict[str, str] = field(repr=False)


Fate = str | int | float | tuple[int, bytes] | None  # DROP, a status, seconds of delay, a status and a body; all well


class Proxy(http.server.ThreadingHTTPServer):
    """Stands before the server on a port of this machine, and remembers what it was asked."""

    def __init__(self, port: int, spoil: Callable[[Asked], Fate]) -> None:
        super().__init__(("127.0.0.1", 0), Forward)
        self.target = port
        self.spoil = spoil
        self.seen: list[Asked] = []
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Serve no more."""
        self.shutdown()
        self.server_close()


class Forward(http.server.BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Proxy

    def do(self) -> None:
        """Meet the request's fate."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.server.lock:
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(len(self.server.seen), self.command, self.path, headers)
            self.server.seen.append(asked)
            fate = self.server.spoil(asked)
        if isinstance(fate, float):
            time.sleep(fate)
        elif isinstance(fate, int):
            self._answer(fate, [], b"")
            return
        elif isinstance(fate, tuple):
            self._answer(fate[0], [("Content-Type", "application/xml")], fate[1])
            return
        connection = http.client.HTTPConnection("127.0.0.1", self.server.target)
        connection.request(self.command, self.path, body, asked.headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if fate == DROP:
            self.close_connection = True
            self.connection.close()
            return
        self._answer(answer.status, answer.getheaders(), content)

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status)
        length = str(len(content))
        for name, value in headers:
            if name.lower() == "content-length":
                length = value  # of HEAD too, whose content stays away
            elif name.lower() not in ("transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(content)

    do_PUT = do_GET = do_DELETE = do_POST = do_HEAD = do

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


def serve_s3() -> tuple[ThreadedMotoServer, int]:
    """Start an S3 server with a bucket named `bucket`; return it and its port."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _take_turns(server)
    _, port = server.get_host_and_port()
    key = {"aws_access_key_id": "x", "aws_secret_access_key": "x", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", **key).create_bucket(Bucket="bucket")
    return server, port


def _take_turns(server: ThreadedMotoServer) -> None:
    """Moto (5.2.5) looks whether an object is there, then writes it: two of 32 racing writers were both told 200."""
    served, turn = server._server, threading.Lock()
    assert served is not None
    answer = served.app

    def one_by_one(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        with turn:
            return answer(environ, start_response)

    served.app = one_by_one


def speak_gcs(asked: Asked) -> Fate:
    """Take Google's dialect, which is S3's but for its keys and the generation of an object that a writer expects.

    Generation 0 is that of an object that is not there.
    """
    asked.headers["authorization"] = "AWS4-HMAC-SHA256 Credential=x/20000101/us-east-1/s3/aws4_request"
    if (expected := asked.headers.pop("x-goog-if-generation-match", None)) is not None:
        if expected != "0":
            return 412
        asked.headers["if-none-match"] = "*"
    return None


def environment(port: int) -> dict[str, str]:
    """What a user of the S3 server on a port of this machine sets."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
