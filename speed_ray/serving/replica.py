"""One replica: a model behind /v1/embeddings, /v1/models and /health, in the words of OpenAI's client."""

import asyncio
import base64
import logging
import sys
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import orjson
from starlette.requests import Request
from starlette.responses import Response

from speed_ray.serving.batcher import DynamicBatcher
from speed_ray.serving.embedding_request import (
    MAX_BODY_BYTES,
    APIError,
    EmbeddingRequest,
    check_tokens,
    parse_request,
    too_large,
)
from speed_ray.serving.served_model import ServedModel, Vectors, truncated

log = logging.getLogger(__name__)

# How long one thread may keep Python from another. The model's thread asks for Python after every operation of torch,
# and waited for the event loop's thread each time: with the usual 5 ms it embedded a fifth fewer texts a second.
SWITCH_SECONDS = 0.0005


class Embed:
    """The class that Ray Serve makes replicas of. `fetch` returns the model's folder, on the replica's own node."""

    def __init__(self, fetch: Callable[[], str], name: str, threads: int) -> None:
        sys.setswitchinterval(SWITCH_SECONDS)
        self._name = name
        self._model = ServedModel(fetch(), threads)
        self._rounds = DynamicBatcher(self._model.encode, self._model.forward_tokens)
        self._counting = ThreadPoolExecutor(1, "counting")  # not the model's thread: too long is said at once
        self._described = {"id": name, "object": "model", "created": int(time.time()), "owned_by": "speed_ray"}
        self._routes: dict[str, tuple[str, Callable[[Request], Coroutine[Any, Any, Response]]]] = {
            "/health": ("GET", self._health),
            "/v1/models": ("GET", self._models),
            f"/v1/models/{name}": ("GET", self._model_alone),
            "/v1/embeddings": ("POST", self._embeddings),
        }

    async def __call__(self, request: Request) -> Response:
        """Answer one request; every error is in OpenAI's form."""
        try:
            if (path := request.url.path) not in self._routes:
                raise APIError(404, f"There is nothing at {path[:200]}; there is {', '.join(self._routes)}.")
            method, answer = self._routes[path]
            if request.method != method:
                raise APIError(405, f"{path} takes {method} requests, not {request.method}.")
            return await answer(request)
        except APIError as refused:
            return refused.response()
        except Exception:
            log.exception("a request failed")
            return APIError(503, "The model failed on this request; the server's log says why.").response()

    def check_health(self) -> None:
        """Ray Serve asks this now and then, and starts a replica anew whose model only fails."""
        if self._rounds.failure is not None:
            raise self._rounds.failure

    async def _health(self, request: Request) -> Response:
        return _json({"status": "ok"})

    async def _models(self, request: Request) -> Response:
        return _json({"object": "list", "data": [self._described]})

    async def _model_alone(self, request: Request) -> Response:
        return _json(self._described)

    async def _embeddings(self, request: Request) -> Response:
        asked = parse_request(await _body(request), self._name, self._model.width, self._model.most_tokens)
        loop = asyncio.get_running_loop()
        tokens = await loop.run_in_executor(self._counting, self._model.count, asked.texts, asked.input_type)
        check_tokens(tokens, self._model.most_tokens)
        vectors = await self._rounds.embed(asked.texts, tokens, asked.input_type)
        return _json(
            {
                "object": "list",
                "model": self._name,
                "data": [
                    {"object": "embedding", "index": index, "embedding": vector}
                    for index, vector in enumerate(_written(vectors, asked))
                ],
                "usage": {"prompt_tokens": sum(tokens), "total_tokens": sum(tokens)},
            }
        )


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise too_large()
    return bytes(body)


def _written(vectors: Vectors, asked: EmbeddingRequest) -> list[Any]:
    """Each vector as JSON holds it: a list of numbers, or base64 of little-endian float32."""
    cut = np.ascontiguousarray(truncated(vectors, asked.dimensions), dtype="<f4")
    return [base64.b64encode(vector).decode() for vector in cut] if asked.base64 else list(cut)


def _json(content: dict[str, Any]) -> Response:
    return Response(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")
