"""Simulate an engine: vLLM's timing, replies that parse, and faults on demand, to test a cluster without a GPU.

Timing follows continuous batching (continuous_batching_clock.py). A request waits until fewer than `max_concurrency`
others run; its prompt is read, one prompt after another, at `prefill` tokens a second (time to first token = waiting +
prompt tokens / prefill); then each of its n samples decodes at min(`max_tokens_per_stream`, `decode` / samples
decoding) tokens a second, a rate that changes with every request that starts or ends. A prompt has a token for every
four characters; a reply has `output_tokens`, plus or minus up to the share `spread` of it, drawn from the request's
seed. Log-probabilities are drawn from the text that they are of: a word has the same one wherever it stands, and a
prompt the same first token, yes or no, whenever it is sent.

Faults are drawn from the request's seed, so the same rows fail on every run. A malformed reply gets a new seed from
the stage, and a hanging one is what the watchdog is for: both recur as they should. A row that killed its engine each
time could never be finished, so a death leaves a mark, a file named after the row in the folder that the environment
variable SPEED_RAY_DEATHS names (one that every node sees), and only the process that makes the mark dies. Process ids
would not do: with a share of 1% an engine would get through a shard of 256 rows once in 13 tries, with 5% never.
"""

import asyncio
import math
import os
import random
import time
from enum import Enum
from pathlib import Path
from typing import BinaryIO

from speed_ray.engines.base import EngineDead, Load, Reply, Request, Sample
from speed_ray.engines.continuous_batching_clock import ContinuousBatching
from speed_ray.engines.fake_text import fake_reply
from speed_ray.errors import UserError
from speed_ray.recipes.engine_settings import SimulatedEngine
from speed_ray.records import TokenLogprob

DEATHS = "SPEED_RAY_DEATHS"
CHARACTERS_A_TOKEN = 4
TURN = 64  # answers that took no time, after which other coroutines get their turn


class _Fault(Enum):
    DIE = "die"
    HANG = "hang"
    MALFORMED = "malformed"


class Simulated:
    """Answers with random text after the time that a continuous-batching engine of the recipe's rates would take."""

    def __init__(self, config: SimulatedEngine) -> None:
        self.model = config.model
        self.in_flight = config.max_concurrency
        self._config = config
        self._shares = [(fault, share) for fault in _Fault if (share := getattr(config.faults, fault.value))]
        self._asked: BinaryIO | None = None
        self._hanging: list[asyncio.Future[None]] = []
        self._dead = False
        self._answered = 0

    async def start(self) -> None:
        """Start the clock. Raises UserError for faults.die without a folder to record deaths in."""
        config = self._config
        if config.faults.die and not os.environ.get(DEATHS):
            raise UserError(
                "faults.die needs a folder that every node sees, where a row's death is marked: it comes once.\n"
                f"Name an empty one in the environment variable {DEATHS}, on every node."
            )
        self._batching = ContinuousBatching(
            config.max_concurrency, config.prefill, config.decode, config.max_tokens_per_stream
        )
        if config.request_log:
            # One unbuffered write a row: what was asked is known even of an actor that is killed.
            self._asked = (Path(config.request_log) / f"{os.getpid()}.txt").open("ab", buffering=0)
        if config.utilization_log:
            self._recording = asyncio.create_task(self._record(Path(config.utilization_log)))

    def load(self) -> Load:
        """Count the requests that hold a slot, and those that wait for one."""
        return Load(self._batching.running, self._batching.waiting)

    async def close(self) -> None:
        """Fail every request in flight."""
        self._batching.fail(EngineDead("the simulated engine was closed"))

    async def generate(self, request: Request) -> Reply:
        """Answer after the simulated time. Raises EngineDead for all in flight once one of them kills the engine."""
        self._stop_if_dead()
        if self._asked:
            self._asked.write(request.row_id.encode() + b"\n")
        clock = asyncio.get_running_loop().time
        began = clock()
        fault = self._fault(request.seed) if self._shares else None
        prompt_tokens = sum(len(message["content"]) for message in request.messages) // CHARACTERS_A_TOKEN
        output_tokens = min(self._length(request.seed), request.max_tokens)
        await self._batching.submit(prompt_tokens, output_tokens, request.n)
        self._stop_if_dead()
        await self._strike(fault, request.row_id)
        await self._give_way()
        samples = self._samples(request, output_tokens, malformed=fault is _Fault.MALFORMED)
        return Reply(samples, prompt_tokens, clock() - began)

    async def _record(self, folder: Path) -> None:
        """Record every second the tokens decoded so far, from which benchmarks derive utilization."""
        with (folder / f"{os.getpid()}.txt").open("ab", buffering=0) as file:
            while True:
                file.write(f"{time.time():.3f} {self._batching.tokens():.0f}\n".encode())
                await asyncio.sleep(1)

    def _length(self, seed: int) -> int:
        """Draw a reply's length in tokens."""
        mean, spread = self._config.output_tokens, self._config.spread
        return max(1, round(mean * (1 + spread * random.Random(seed ^ 0x1E46).uniform(-1, 1))))

    def _fault(self, seed: int) -> _Fault | None:
        """Draw at most one fault: each takes its share of the unit interval."""
        drawn = random.Random(seed ^ 0x5EED).random()
        for fault, share in self._shares:
            if drawn < share:
                return fault
            drawn -= share
        return None

    async def _strike(self, fault: _Fault | None, row_id: str) -> None:
        if fault is _Fault.HANG:
            # Kept, because a future that nobody else holds is collected, and its task with it.
            self._hanging.append(asyncio.get_running_loop().create_future())
            await self._hanging[-1]
        if fault is _Fault.DIE and _first_death(row_id):
            self._dead = True
            error = EngineDead(f"the simulated engine died at row {row_id}, as faults.die asks")
            self._batching.fail(error)
            raise error

    def _stop_if_dead(self) -> None:
        if self._dead:
            raise EngineDead("the simulated engine is dead")

    async def _give_way(self) -> None:
        self._answered += 1
        if self._answered % TURN == 0:
            await asyncio.sleep(0)

    def _samples(self, request: Request, output_tokens: int, malformed: bool) -> list[Sample]:
        rng = random.Random(request.seed)
        texts = [fake_reply(request.schema, rng, request.context) for _ in range(request.n)]
        if request.logprobs:
            return [Sample("", "length", output_tokens, _logprobs(request))] * request.n
        if not malformed:
            return [Sample(text, "stop", output_tokens) for text in texts]
        if rng.random() < 0.5:
            return [Sample(text[: len(text) // 2], "length", output_tokens) for text in texts]
        return [Sample(f"Certainly. {fake_reply(None, rng, {})}", "stop", output_tokens) for _ in texts]


def _logprobs(request: Request) -> list[TokenLogprob]:
    """Draw the log-probabilities of a prompt's words, from the second on, or of yes and no as its first token."""
    text = "\n".join(message["content"] for message in request.messages)
    if request.logprobs == "prompt":
        return [{"token": word, "logprob": random.Random(word).uniform(-8, -2)} for word in text.split()[1:]]
    yes = random.Random(text).uniform(0.01, 0.98)
    return [{"token": "Yes", "logprob": math.log(yes)}, {"token": "No", "logprob": math.log(0.99 - yes)}]


def _first_death(row_id: str) -> bool:
    """Record the row's death; return False when it was recorded before, so that each row kills an engine once."""
    folder = Path(os.environ[DEATHS])
    folder.mkdir(parents=True, exist_ok=True)
    try:
        (folder / row_id).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
