"""A commit that the store made, and whose response the network lost, is recognised as one's own."""

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import pytest
from moto.server import ThreadedMotoServer

pytestmark = pytest.mark.slow


class Forgetful(BaseHTTPRequestHandler):
    """Passes requests on to a store; of every third commit that is new to it, it drops the response."""

    protocol_version = "HTTP/1.1"
    store: tuple[str, int]
    seen: set[str]
    lost: set[str]

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        connection = http.client.HTTPConnection(*self.store)
        connection.request(self.command, self.path, body, dict(self.headers))
        response = connection.getresponse()
        answer = response.read()
        connection.close()
        if self.command == "PUT" and "/examples/commits/" in self.path and self.path not in self.seen:
            assert self.headers["If-None-Match"] == "*"
            self.seen.add(self.path)
            if len(self.seen) % 3 == 1:
                self.lost.add(self.path)
                self.close_connection = True
                self.connection.close()
                return
        self.send_response_only(response.status)
        for key, value in response.getheaders():
            if key.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(key, value)
        size = response.getheader("Content-Length") if self.command == "HEAD" else len(answer)
        self.send_header("Content-Length", str(size or 0))
        self.end_headers()
        self.wfile.write(answer)

    do_PUT = do_HEAD = do_POST = do_DELETE = do_GET

    def log_message(self, *words: object) -> None:
        """Keep quiet."""


@pytest.fixture
def forgetful(monkeypatch):
    """An S3 of moto's behind the proxy; the environment names the proxy, as a user's would."""
    moto = ThreadedMotoServer(port=0)
    moto.start()
    handler = type("Handler", (Forgetful,), {"store": moto.get_host_and_port(), "seen": set(), "lost": set()})
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.server_port}",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_REGION": "us-east-1",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="bucket")
    yield handler
    proxy.shutdown()
    proxy.server_close()
    moto.stop()


def test_lost_responses(make_job, drive, prove, nothing_left, forgetful):
    job = make_job(uri="s3://bucket/run").begin()

    driver = drive(job)

    assert driver.ended() == 0, driver.said()
    assert len(forgetful.seen) == 46
    assert len(forgetful.lost) == 16
    prove(job)
    nothing_left(driver)
