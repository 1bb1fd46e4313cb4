"""Simulate the completion times of requests under continuous batching (processor sharing).

One scheduler and at most one timer, whatever is in flight. All streams decode at the same rate, so one number, the
tokens that a stream has decoded since the clock was empty (`_decoded`), places every end: a stream that starts at d
and writes t tokens ends when `_decoded` reaches d + t, however often the rate changes meanwhile (processor sharing).
"""

import asyncio
import heapq
import itertools
import math
from collections import deque
from typing import NamedTuple

NOW = 1e-4  # seconds; what is due so soon happens at once, since timers are no finer


class _Job(NamedTuple):
    answered: asyncio.Future[None]
    prompt_tokens: int
    output_tokens: int
    streams: int


class ContinuousBatching:
    """Schedules requests: they wait for one of `slots`, prefill one after another, then decode concurrently."""

    def __init__(self, slots: int, prefill: float, decode: float, one_stream: float) -> None:
        """Rates are tokens a second: `decode` of all streams together, `one_stream` of a single one."""
        self._slots = slots
        self._prefill = prefill
        self._decode = decode
        self._one_stream = one_stream
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = math.inf  # asked of ourselves: uvloop, which Ray's actors run on, hands out no `when()`
        self._time = self._loop.time()  # up to when everything has happened
        self._waiting: deque[_Job] = deque()
        self._reading: deque[tuple[float, _Job]] = deque()  # (time of its first token, job), in order
        self._decoding: list[tuple[float, int, _Job]] = []  # heap of (`_decoded` at its end, tie-breaker, job)
        self._decoded = 0.0
        self._streams = 0
        self._tokens = 0.0
        self._order = itertools.count()

    def submit(self, prompt_tokens: int, output_tokens: int, streams: int) -> asyncio.Future[None]:
        """Return a future that is done when the request would be answered; with high rates it is done already."""
        job = _Job(self._loop.create_future(), prompt_tokens, output_tokens, streams)
        self._advance()
        self._waiting.append(job)
        self._admit()
        self._advance()
        return job.answered

    @property
    def running(self) -> int:
        """Count the requests that hold a slot."""
        return len(self._reading) + len(self._decoding)

    @property
    def waiting(self) -> int:
        """Count the requests that wait for a slot."""
        return len(self._waiting)

    def tokens(self) -> float:
        """Return the output tokens decoded so far, over all requests."""
        self._advance()
        return self._tokens

    def fail(self, error: Exception) -> None:
        """Fail everything in flight with an error."""
        jobs = [*self._waiting, *(job for _, job in self._reading), *(job for *_, job in self._decoding)]
        self._waiting.clear()
        self._reading.clear()
        self._decoding.clear()
        self._streams = 0
        for job in jobs:
            if not job.answered.done():
                job.answered.set_exception(error)

    def _advance(self) -> None:
        """Process every event that is due, and set the timer for the next one."""
        until = self._loop.time() + NOW
        while (due := self._next()) <= until:
            self._pass_to(due)
            if self._reading and self._reading[0][0] <= self._time:
                self._start_decoding()
            else:
                self._end_decoding()
        self._pass_to(until - NOW)
        self._wake_at(due)

    def _next(self) -> float:
        first_token = self._reading[0][0] if self._reading else math.inf
        if not self._decoding:
            return first_token
        left = self._decoding[0][0] - self._decoded
        return min(first_token, self._time + max(0.0, left) / self._rate())

    def _rate(self) -> float:
        return min(self._one_stream, self._decode / self._streams)

    def _pass_to(self, time: float) -> None:
        if time > self._time:
            if self._streams:
                decoded = self._rate() * (time - self._time)
                self._decoded += decoded
                self._tokens += decoded * self._streams
            self._time = time

    def _start_decoding(self) -> None:
        _, job = self._reading.popleft()
        heapq.heappush(self._decoding, (self._decoded + job.output_tokens, next(self._order), job))
        self._streams += job.streams

    def _end_decoding(self) -> None:
        _, _, job = heapq.heappop(self._decoding)
        self._streams -= job.streams
        if not self._decoding:
            self._decoded = 0.0
        if not job.answered.done():
            job.answered.set_result(None)
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self.running < self._slots:
            job = self._waiting.popleft()
            free = max(self._time, self._reading[-1][0] if self._reading else 0.0)
            self._reading.append((free + job.prompt_tokens / self._prefill, job))

    def _wake_at(self, time: float) -> None:
        if self._timer is not None:
            if self._timer_due <= time:
                return
            self._timer.cancel()
        self._timer = None if time == math.inf else self._loop.call_at(time, self._on_timer)
        self._timer_due = time

    def _on_timer(self) -> None:
        self._timer = None
        self._advance()
