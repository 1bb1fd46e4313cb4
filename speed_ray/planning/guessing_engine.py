"""Answer prompts at once and for nothing, so that what comes after them can be rendered."""

import random

from speed_ray.engines.base import Engine, Load, Reply, Request, Sample
from speed_ray.engines.fake_text import fake_reply
from speed_ray.engines.scripted import ScriptedTeacher
from speed_ray.engines.simulated import Simulated
from speed_ray.planning.token_counter import TokenCounter
from speed_ray.recipes.engine_settings import EngineConfig, Faults, ScriptedEngine, SimulatedEngine

AT_ONCE = 1e12  # tokens a second


class GuessingEngine:
    """Writes replies of the length that their prompts ask for: what a model will make of them is not known."""

    def __init__(self, config: EngineConfig, counter: TokenCounter) -> None:
        self.model = config.model
        self.in_flight = 64
        self._counter = counter

    async def start(self) -> None:
        """Do nothing: there is nothing to load."""

    async def generate(self, request: Request) -> Reply:
        """Write n samples. Log-probabilities are not told, only the one token that they come with."""
        rng = random.Random(request.seed)
        prompt = self._counter.prompt(request.messages)
        if request.logprobs:
            return Reply([Sample("", "length", 1)] * request.n, prompt, 0.0)
        texts = [fake_reply(request.schema, rng, request.context) for _ in range(request.n)]
        return Reply([Sample(text, "stop", self._counter.text(text)) for text in texts], prompt, 0.0)

    def load(self) -> Load:
        """Report no load: every request is answered at once."""
        return Load(running=0, waiting=0)

    async def close(self) -> None:
        """Do nothing: there is nothing to release."""


def free_engine(config: EngineConfig, counter: TokenCounter) -> Engine:
    """Return an engine that costs nothing: scripts and simulations answer as they will, other models are guessed."""
    if isinstance(config, ScriptedEngine):
        return ScriptedTeacher(config)
    if isinstance(config, SimulatedEngine):
        rates = dict.fromkeys(("prefill", "decode", "max_tokens_per_stream"), AT_ONCE)
        faults = Faults(malformed=config.faults.malformed)  # a death and a hang cost time, and no call that counts
        logs = {"request_log": None, "utilization_log": None}
        return Simulated(config.model_copy(update={**rates, **logs, "faults": faults}))
    return GuessingEngine(config, counter)


def is_known(config: EngineConfig) -> bool:
    """Tell whether `free_engine` answers as the engine itself will."""
    return isinstance(config, ScriptedEngine | SimulatedEngine)
