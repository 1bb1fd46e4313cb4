"""Answer with errors in OpenAI's form, also where Ray Serve would answer in plain text.

Serve puts `middlewares` around its replicas and proxies by the import path that on_ray/serve_env.py has. Kept because
clients are promised a 503 with Retry-After for whatever Serve could not answer (tests/unit/serving/test_serving.py).
"""

import asyncio
import contextlib

import orjson
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from speed_ray.serving.haproxy import NO_REPLICA, RETRY_SECONDS

HEALTH_SECONDS = 10.0  # without a replica Serve keeps requests until there is one; a probe wants to know now
SERVE_ERRORS = (408, 500, 503)  # timed out, replica lost, too many waiting


class APIError(Exception):
    """Refuses a request; `param` and `code` are OpenAI's."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        kind = "invalid_request_error" if status < 500 else "server_error"
        self.body = {"message": message, "type": kind, "param": param, "code": code}

    def response(self) -> Response:
        """Return the answer; one that is worth a retry says when."""
        headers = {"retry-after": str(RETRY_SECONDS)} if self.status == 503 else {}
        return Response(orjson.dumps({"error": self.body}), self.status, headers, media_type="application/json")


def middlewares() -> list[Middleware]:
    """Return what Serve puts around its ASGI apps."""
    return [Middleware(JsonErrors)]


class JsonErrors:
    """Replaces an ASGI app's plain-text errors, and its silence, by a 503 in OpenAI's form."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and its answer back, unless Serve made the answer."""
        if scope["type"] != "http" or scope["path"].startswith("/-/"):
            return await self._app(scope, receive, send)
        answered = dropped = False

        async def send_unless_dropped(message: Message) -> None:
            nonlocal answered, dropped
            if message["type"] == "http.response.start":
                media_type = Headers(raw=message.get("headers", [])).get("content-type", "")
                dropped = message["status"] in SERVE_ERRORS and not media_type.startswith("application/json")
            if not dropped:
                answered = True
                await send(message)

        seconds = HEALTH_SECONDS if scope["path"] == "/health" else None
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._app(scope, receive, send_unless_dropped), seconds)
        if not answered:
            await APIError(503, NO_REPLICA).response()(scope, receive, send)
