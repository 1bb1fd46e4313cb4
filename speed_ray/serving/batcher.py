"""Batch the texts of all waiting requests: fairly, and in forwards of like lengths.

While the model works on one batch, texts for the next come in. A batch takes one text of every request in turn, so a
request with one text is in the next batch, however many texts another has (tests hold that).

Ray's `@serve.batch` (2.60) has no turns, and closes a batch before the model is free: with 64 clients of one text a
request a replica took 18 ms of CPU a text by it, 8 to 12 by this (MiniLM, on a busy machine).
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from speed_ray.serving.embedding_request import InputType

FORWARDS_PER_BATCH = 4  # more: less padding, but a longer wait for requests that come while it runs

Encode = Callable[[list[str], InputType], np.ndarray]  # vectors: (texts, width), float32


@dataclass(eq=False)
class PendingRequest:
    """Holds a request's texts, the number of tokens of each, and the vectors that there are so far."""

    texts: list[str]
    tokens: list[int]
    input_type: InputType
    result: asyncio.Future[np.ndarray]
    batched: int = 0  # texts that were put into a batch
    vectors: dict[int, np.ndarray] = field(default_factory=dict)

    def add(self, index: int, vector: np.ndarray) -> None:
        """Take the vector of one text; with the last one the result is set."""
        self.vectors[index] = vector
        if len(self.vectors) == len(self.texts) and not self.result.done():
            self.result.set_result(np.stack([self.vectors[each] for each in range(len(self.texts))]))

    def fail(self, error: Exception) -> None:
        """Set an error as the result."""
        if not self.result.done():
            self.result.set_exception(error)


BatchedText = tuple[PendingRequest, int]  # and its index in the request


class DynamicBatcher:
    """Runs one model in a thread of its own, so that the event loop stays free to answer."""

    def __init__(self, encode: Encode, forward_tokens: int) -> None:
        self._encode = encode
        self._forward_tokens = forward_tokens
        self._queue: deque[PendingRequest] = deque()
        self._thread = ThreadPoolExecutor(1, "model")
        self._running: asyncio.Task[None] | None = None
        self.failure: Exception | None = None  # of the last forward, until one succeeds

    async def embed(self, texts: list[str], tokens: list[int], input_type: InputType) -> np.ndarray:
        """Return a request's vectors, (texts, width), in order. Raises what the model raised."""
        request = PendingRequest(texts, tokens, input_type, asyncio.get_running_loop().create_future())
        self._queue.append(request)
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        return await request.result

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := self._next_batch():
            for forward in split_batch(batch, self._forward_tokens):
                texts, input_type = [request.texts[index] for request, index in forward], forward[0][0].input_type
                try:
                    vectors = await loop.run_in_executor(self._thread, self._encode, texts, input_type)
                    self.failure = None
                except Exception as error:  # whatever the model raises is its requests' result, and no other's
                    self.failure = error
                    for request, _ in forward:
                        request.fail(error)
                    continue
                for (request, index), vector in zip(forward, vectors, strict=True):
                    request.add(index, vector)

    def _next_batch(self) -> list[BatchedText]:
        """Take one text of each waiting request in turn, until the batch is full or no text waits."""
        batch: list[BatchedText] = []
        tokens_left = self._forward_tokens * FORWARDS_PER_BATCH
        while self._queue and tokens_left > 0:
            request = self._queue.popleft()
            if request.result.done():  # it failed, or its client went away
                continue
            batch.append((request, request.batched))
            tokens_left -= request.tokens[request.batched]
            request.batched += 1
            if request.batched < len(request.texts):
                self._queue.append(request)
        return batch


def split_batch(batch: list[BatchedText], max_tokens: int) -> Iterator[list[BatchedText]]:
    """Yield forwards of one input type, the longest texts first, each of at most `max_tokens` padded tokens.

    A text that is longer than that is a forward of its own.
    """
    for input_type in dict.fromkeys(request.input_type for request, _ in batch):
        texts = [text for text in batch if text[0].input_type == input_type]
        texts.sort(key=lambda text: text[0].tokens[text[1]], reverse=True)
        while texts:
            request, index = texts[0]
            count = max(1, max_tokens // request.tokens[index])
            yield texts[:count]
            texts = texts[count:]
