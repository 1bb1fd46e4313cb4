"""Dynamic batching: the texts of all requests that wait, dealt into rounds that are fair, in forwards of like lengths.

While the model works on one round, texts for the next come in. A round takes one text of every request in turn, so a
request with one text is in the next round, however many texts another has.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from speed_ray.serving.embedding_request import InputType
from speed_ray.serving.served_model import Vectors

FORWARDS = 4  # of a round. More: less padding, but a longer wait for those who come while it runs.

Encode = Callable[[list[str], InputType], Vectors]


@dataclass(eq=False)
class QueuedText:
    """One request: its texts, their tokens, how many texts were dealt, and the vectors that there are so far."""

    texts: list[str]
    tokens: list[int]
    input_type: InputType
    answer: asyncio.Future[Vectors]
    dealt: int = 0
    vectors: dict[int, np.ndarray] = field(default_factory=dict)


Card = tuple[QueuedText, int]  # a text: its request and its place there


class DynamicBatcher:
    """One model at work, in a thread of its own; the event loop stays free to answer."""

    def __init__(self, encode: Encode, forward_tokens: int) -> None:
        self._encode = encode
        self._forward_tokens = forward_tokens
        self._queue: deque[QueuedText] = deque()
        self._thread = ThreadPoolExecutor(1, "model")
        self._work: asyncio.Task[None] | None = None
        self.failure: Exception | None = None  # of the last forward, until one succeeds

    async def embed(self, texts: list[str], tokens: list[int], input_type: InputType) -> Vectors:
        """The vectors of a request's texts, in order. Raises what the model raised."""
        waiting = QueuedText(texts, tokens, input_type, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._until_none_waits())
        return await waiting.answer

    async def _until_none_waits(self) -> None:
        loop = asyncio.get_running_loop()
        while round_ := self._deal():
            for forward in list(forwards(round_, self._forward_tokens)):
                texts = [waiting.texts[place] for waiting, place in forward]
                try:
                    vectors = await loop.run_in_executor(self._thread, self._encode, texts, forward[0][0].input_type)
                    self.failure = None
                except Exception as error:  # whatever the model raises is its requests' answer, and no other's
                    self.failure = error
                    for waiting, _ in forward:
                        if not waiting.answer.done():
                            waiting.answer.set_exception(error)
                    continue
                for (waiting, place), vector in zip(forward, vectors, strict=True):
                    _take(waiting, place, vector)

    def _deal(self) -> list[Card]:
        """One text of each waiting request in turn, until the round is full or nobody waits."""
        round_: list[Card] = []
        room = self._forward_tokens * FORWARDS
        while self._queue and room > 0:
            waiting = self._queue.popleft()
            if waiting.answer.done():  # it failed, or its client went away
                continue
            round_.append((waiting, waiting.dealt))
            room -= waiting.tokens[waiting.dealt]
            waiting.dealt += 1
            if waiting.dealt < len(waiting.texts):
                self._queue.append(waiting)
        return round_


def forwards(round_: list[Card], most_tokens: int) -> Iterator[list[Card]]:
    """Cut a round into forwards of one input type, the longest texts first, none with more padded tokens than `most`.

    A text that is longer than that is a forward of its own.
    """
    kind = lambda card: card[0].input_type or ""  # noqa: E731
    for _, cards in itertools.groupby(sorted(round_, key=kind), key=kind):
        by_length = sorted(cards, key=lambda card: card[0].tokens[card[1]], reverse=True)
        while by_length:
            waiting, place = by_length[0]
            count = max(1, most_tokens // waiting.tokens[place])
            yield by_length[:count]
            by_length = by_length[count:]


def _take(waiting: QueuedText, place: int, vector: np.ndarray) -> None:
    waiting.vectors[place] = vector
    if len(waiting.vectors) == len(waiting.texts) and not waiting.answer.done():
        waiting.answer.set_result(np.stack([waiting.vectors[place] for place in range(len(waiting.texts))]))
