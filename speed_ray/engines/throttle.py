"""Limit the requests in flight to an endpoint: fewer while it rate-limits, more again when it does not.

Additive increase, multiplicative decrease, with the decrease in proportion to the share of rate-limited responses
(as DCTCP does, RFC 8257): an endpoint that refuses everything sees its load halved each round trip, one that drops a
few percent at random keeps nearly all of it. A round trip is counted in answers, so no clock is needed.
"""

import asyncio
from collections import deque
from types import TracebackType


class Throttle:
    """Admits `limit` callers at once, at most `most`, first come first served, as an async context manager."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = float(most)
        self.active = 0
        self._step = max(1.0, most / 32)  # from one back to `most` within 32 round trips
        self._answers = 0
        self._refusals = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def __aenter__(self) -> None:
        if not self._waiting and self.active < int(self.limit):
            self.active += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # let in and cancelled in the same moment: pass the turn on
                self._leave()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def record_response(self, *, rate_limited: bool) -> None:
        """Count one response; after a round trip's worth of them (`limit`) adjust the limit once."""
        self._answers += 1
        self._refusals += rate_limited
        if self._answers < int(self.limit):
            return
        share = self._refusals / self._answers
        self._answers = self._refusals = 0
        self.limit = min(self.most, max(1.0, self.limit * (1 - share / 2) + self._step * (1 - share)))
        self._admit()

    def _leave(self) -> None:
        self.active -= 1
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self.active < int(self.limit):
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                self.active += 1
