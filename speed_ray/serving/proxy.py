"""What stands before a replica where HTTP arrives: a lost one is a 503 that clients repeat, and bodies have an end.

Serve calls `middlewares` in its own proxies, and behind HAProxy (haproxy.py) in the replicas, by the import path that
RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH holds there.
Without it a lost replica is a plain 500, and a body of any size is read into the proxy's memory.
"""

import asyncio
from typing import Any

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from speed_ray.serving.embedding_request import MAX_BODY_BYTES, APIError, too_large
from speed_ray.serving.haproxy import LOST

HEALTH_SECONDS = 10.0  # without a replica Serve keeps requests until there is one; a probe wants to know now
MOST_DROPPED = 8 * MAX_BODY_BYTES  # of a body that is too large, until the connection is closed
SERVES_OWN = (408, 500, 503)  # timed out, replica lost, too many waiting: as plain text


def middlewares() -> list[Middleware]:
    """Return what Serve puts around its proxy."""
    return [Middleware(JsonErrors)]


class JsonErrors:
    """Around a proxy's ASGI app."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it; tell a client to repeat it where Serve could not get an answer."""
        if scope["type"] != "http" or scope["path"].startswith("/-/"):
            return await self._app(scope, receive, send)
        body = await _read(receive)
        if body is None:
            return await too_large().response()(scope, receive, send)
        answer = _Answer(send)
        patience = HEALTH_SECONDS if scope["path"] == "/health" else None
        try:
            await asyncio.wait_for(self._app(scope, _replay(body, receive), answer.send), patience)
        except TimeoutError:
            if answer.begun:
                raise
        if not answer.begun:
            await APIError(503, LOST).response()(scope, receive, send)


class _Answer:
    """What goes back to the client, without Serve's own plain-text errors."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False
        self._dropped = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            kind = Headers(raw=message.get("headers", [])).get("content-type", "")
            self._dropped = message["status"] in SERVES_OWN and not kind.startswith("application/json")
        if not self._dropped:
            self.begun = True
            await self._send(message)


async def _read(receive: Receive) -> bytes | None:
    """The whole body, so that no slow client holds a replica; None where it is too large.

    What is too large is read on and dropped, because most clients read no answer before they have sent everything.
    """
    body, read = bytearray(), 0
    while read <= MOST_DROPPED:
        message = await receive()
        piece = message.get("body", b"")
        read += len(piece)
        if read <= MAX_BODY_BYTES:
            body += piece
        if not message.get("more_body", False):  # as with a client that went away
            return bytes(body) if read <= MAX_BODY_BYTES else None
    return None


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that begins with the body that was read."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Any:
        return messages.pop() if messages else await receive()

    return receive_again
