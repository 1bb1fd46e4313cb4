"""Serve the miniature world's scripted teacher as an engine: no model and no cost."""

import time

from speed_ray.engines.base import Load, Reply, Request, Sample
from speed_ray.miniature import teacher
from speed_ray.recipes.engine_settings import ScriptedEngine


class ScriptedTeacher:
    """Answer from `Request.context` and `Request.seed`; sample i of n is drawn from seed + i. Tokens are words."""

    def __init__(self, config: ScriptedEngine) -> None:
        self.model = config.model
        self.in_flight = config.max_concurrency

    async def start(self) -> None:
        """Do nothing: there is nothing to load."""

    async def generate(self, request: Request) -> Reply:
        """Write n samples."""
        began = time.perf_counter()
        texts = [teacher.answer(request.context, request.seed + sample) for sample in range(request.n)]
        samples = [Sample(text, finish_reason="stop", output_tokens=len(text.split())) for text in texts]
        prompt_tokens = sum(len(message["content"].split()) for message in request.messages)
        return Reply(samples, prompt_tokens, time.perf_counter() - began)

    def load(self) -> Load:
        """Report no load: every request is answered at once."""
        return Load(running=0, waiting=0)

    async def close(self) -> None:
        """Do nothing: there is nothing to release."""
