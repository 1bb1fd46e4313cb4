"""Run one replica: a sentence-transformers model behind OpenAI's /v1/embeddings and /v1/models, and /health."""

import asyncio
import base64
import logging
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import orjson
import torch
from sentence_transformers import SentenceTransformer
from starlette.requests import Request
from starlette.responses import Response
from tokenizers import Tokenizer

from speed_ray.engines.embedder_folder import load_embedder
from speed_ray.serving.batcher import DynamicBatcher
from speed_ray.serving.embedding_request import InputType, check_tokens, parse_request
from speed_ray.serving.http_errors import APIError

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 8 * 2**20
MAX_DISCARDED_BYTES = 8 * MAX_BODY_BYTES  # of a body that is too large, until the connection is closed
# How long one thread may keep Python from another. The model's thread asks for Python after every operation of torch,
# and waited for the event loop's thread each time: with the usual 5 ms it embedded a fifth fewer texts a second.
SWITCH_SECONDS = 0.0005
# Padded tokens of one forward. On two CPU cores MiniLM embeds a third fewer texts a second with four times as many.
FORWARD_TOKENS_ON_CPU = 256
FORWARD_TOKENS_ON_GPU = 16_384


class ServedModel:
    """Embeds texts and counts their tokens. `encode` and `count` may each be called by one thread at a time."""

    def __init__(self, folder: str, threads: int) -> None:
        torch.set_num_threads(threads)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = load_embedder(folder, "MODEL", device=device, model_kwargs={"use_safetensors": True})
        self._tokenizer = _tokenizer_without_truncation(self._model)
        prompts = self._model.prompts
        documents = [prompts[name] for name in ("document", "passage", "corpus") if name in prompts]
        self._prompts: dict[InputType, str] = {  # as encode_query, encode_document and encode choose them
            "query": prompts.get("query", ""),
            "document": documents[0] if documents else "",
            None: prompts.get(self._model.default_prompt_name or "", ""),
        }
        self.forward_tokens = FORWARD_TOKENS_ON_CPU if device == "cpu" else FORWARD_TOKENS_ON_GPU
        longest = self._model.get_max_seq_length()
        self.max_tokens = int(longest) if longest and longest < 10**9 else None  # some tokenizers' "any length"
        self.width = self.encode(["a first text, to warm up"], None).shape[1]

    def count(self, texts: Sequence[str], input_type: InputType) -> list[int]:
        """Return the number of tokens of each text with its prompt and special tokens, none cut off."""
        prompt = self._prompts[input_type]
        return [len(tokens) for tokens in self._tokenizer.encode_batch_fast([prompt + text for text in texts])]

    def encode(self, texts: list[str], input_type: InputType) -> np.ndarray:
        """Embed texts in one forward, as the model's own encode, encode_query or encode_document: (texts, width)."""
        encoders = {"query": self._model.encode_query, "document": self._model.encode_document}
        encode = encoders[input_type] if input_type else self._model.encode
        vectors = encode(texts, batch_size=len(texts), show_progress_bar=False, convert_to_numpy=True)
        return np.asarray(vectors, dtype=np.float32)


class Embed:
    """Answers requests as a Ray Serve deployment. `fetch` returns the model's folder, on the replica's own node."""

    def __init__(self, fetch: Callable[[], str], name: str, threads: int) -> None:
        sys.setswitchinterval(SWITCH_SECONDS)
        self._name = name
        self._model = ServedModel(fetch(), threads)
        self._batcher = DynamicBatcher(self._model.encode, self._model.forward_tokens)
        self._counting = ThreadPoolExecutor(
            1, "counting"
        )  # not the model's: a text that is too long is refused at once
        self._description = {"id": name, "object": "model", "created": int(time.time()), "owned_by": "speed_ray"}
        self._routes: dict[str, tuple[str, Callable[[Request], Coroutine[Any, Any, dict[str, Any]]]]] = {
            "/health": ("GET", self._health),
            "/v1/models": ("GET", self._models),
            f"/v1/models/{name}": ("GET", self._describe),
            "/v1/embeddings": ("POST", self._embeddings),
        }

    async def __call__(self, request: Request) -> Response:
        """Answer one request; every error is in OpenAI's form."""
        try:
            if (path := request.url.path) not in self._routes:
                raise APIError(404, f"There is nothing at {path[:200]}; there is {', '.join(self._routes)}.")
            method, answer = self._routes[path]
            if request.method == "OPTIONS":
                return Response(status_code=204, headers={"Allow": f"{method}, OPTIONS"})
            if request.method != method and (request.method, method) != ("HEAD", "GET"):
                raise APIError(405, f"{path} takes {method} requests, not {request.method}.")
            content = orjson.dumps(await answer(request), option=orjson.OPT_SERIALIZE_NUMPY)
            return Response(content, media_type="application/json")
        except APIError as error:
            return error.response()
        except Exception:
            log.exception("a request failed")
            return APIError(503, "The model failed on this request; the server's log says why.").response()

    def check_health(self) -> None:
        """Raise what the model raised last; Ray Serve calls this now and then, and restarts such a replica."""
        if self._batcher.failure is not None:
            raise self._batcher.failure

    async def _health(self, request: Request) -> dict[str, Any]:
        return {"status": "ok"}

    async def _models(self, request: Request) -> dict[str, Any]:
        return {"object": "list", "data": [self._description]}

    async def _describe(self, request: Request) -> dict[str, Any]:
        return self._description

    async def _embeddings(self, request: Request) -> dict[str, Any]:
        model = self._model
        wanted = parse_request(await _read_body(request), self._name, model.width, model.max_tokens)
        loop = asyncio.get_running_loop()
        tokens = await loop.run_in_executor(self._counting, model.count, wanted.input, wanted.input_type)
        check_tokens(tokens, model.max_tokens)
        vectors = truncate(await self._batcher.embed(wanted.input, tokens, wanted.input_type), wanted.dimensions)
        as_json = _to_base64 if wanted.encoding_format == "base64" else list
        return {
            "object": "list",
            "model": self._name,
            "data": [
                {"object": "embedding", "index": index, "embedding": vector}
                for index, vector in enumerate(as_json(vectors))
            ],
            "usage": {"prompt_tokens": sum(tokens), "total_tokens": sum(tokens)},
        }


def truncate(vectors: np.ndarray, dimensions: int | None) -> np.ndarray:
    """Cut vectors, (texts, width), to (texts, dimensions) of length 1, as OpenAI does; None leaves them."""
    if dimensions is None:
        return vectors
    cut = vectors[:, :dimensions]
    lengths = np.linalg.norm(cut, axis=1, keepdims=True)
    return np.divide(cut, lengths, out=np.zeros_like(cut), where=lengths > 0)


def _to_base64(vectors: np.ndarray) -> list[str]:
    return [base64.b64encode(vector).decode() for vector in np.ascontiguousarray(vectors, dtype="<f4")]


async def _read_body(request: Request) -> bytes:
    """Return the body. One that is too large is read on: most clients read no answer before they sent everything."""
    body, size = bytearray(), 0
    async for piece in request.stream():
        size += len(piece)
        if size <= MAX_BODY_BYTES:
            body += piece
        elif size > MAX_DISCARDED_BYTES:
            break
    if size > MAX_BODY_BYTES:
        raise APIError(413, f"The body is larger than {MAX_BODY_BYTES} bytes. Send fewer texts at a time.")
    return bytes(body)


def _tokenizer_without_truncation(model: SentenceTransformer) -> Tokenizer:
    """Copy the tokenizer, because the model's own is set anew for each forward."""
    tokenizer = getattr(model.tokenizer, "backend_tokenizer", model.tokenizer)
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    return copy
