"""Ask an endpoint one cheap question, by the engine that a run would ask it by, and see what comes with the answer."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace

from obstore.store import MemoryStore

from speed_ray.doctor.finding import Finding
from speed_ray.engines.base import FatalEngineError, Reply, Request, RequestRefused
from speed_ray.engines.budget import Ledger
from speed_ray.engines.openai import OpenAI
from speed_ray.errors import UserError
from speed_ray.recipes.engine_settings import Budget, OpenAIEngine
from speed_ray.recipes.schema import Recipe
from speed_ray.storage.holder import Holder
from speed_ray.storage.spending import Spending
from speed_ray.storage.store import ObjectStore

SECONDS = 60.0  # for the answer: the engine itself would try again for hours
SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "string", "enum": ["yes", "no"]}},
    "required": ["answer"],
    "additionalProperties": False,
}
QUESTION = Request(
    row_id="doctor",
    messages=[{"role": "user", "content": 'Is ice cold? Answer by {"answer": "yes"} or {"answer": "no"}, as JSON.'}],
    temperature=0.0,
    max_tokens=256,  # a model that thinks first needs some
    schema=SCHEMA,
    logprobs="first_token",
)


def check_endpoints(recipe: Recipe) -> Iterator[Finding]:
    """Ask each endpoint of a recipe once."""
    asked: list[OpenAIEngine] = []
    for role, config in (("teacher", recipe.teacher), ("generator", recipe.generator)):
        if isinstance(config, OpenAIEngine) and config not in asked:
            asked.append(config)
            judges = role == "teacher" and recipe.score is not None and recipe.score.llm is not None
            yield from check_endpoint_answers(config, role, judges)


def check_endpoint_answers(config: OpenAIEngine, role: str, judges: bool) -> Iterator[Finding]:
    """Ask one endpoint; once more, without log-probabilities, where it refuses the question as a whole.

    `judges` tells whether the recipe asks it for log-probabilities.
    """
    try:
        engine, reply = asyncio.run(_ask(config, role, QUESTION))
    except (UserError, FatalEngineError, RequestRefused):
        try:
            engine, reply = asyncio.run(_ask(config, role, replace(QUESTION, logprobs=None)))
        except (UserError, FatalEngineError, RequestRefused) as error:
            yield Finding(role, "fail", *_split(str(error)))
            return
        except TimeoutError:
            yield _silent(config, role)
            return
    except TimeoutError:
        yield _silent(config, role)
        return
    yield _answered(config, role, engine, reply)
    yield _structured(config, role, engine, reply)
    yield _logprobs(role, reply, judges)
    yield from _limits(role, engine)


async def _ask(config: OpenAIEngine, role: str, request: Request) -> tuple[OpenAI, Reply]:
    """Ask in the name of no run: no budget of one covers it, and nothing is stored."""
    store = ObjectStore(MemoryStore(), "memory://doctor")
    holder = Holder(store)
    engine = OpenAI(config, Ledger(Budget(), config.price, Spending(store, role), holder, role), role)
    try:
        await engine.start()
        try:
            async with asyncio.timeout(SECONDS):
                return engine, await engine.generate(request)
        finally:
            await engine.close()
    finally:
        holder.close()


def _answered(config: OpenAIEngine, role: str, engine: OpenAI, reply: Reply) -> Finding:
    spent = engine.ledger.spent
    cost = f", ${spent.dollars(config.price):.6f}" if config.price else ""
    said = (
        f"{config.model} answered in {reply.seconds:.1f} s: {spent.prompt_tokens} + {spent.output_tokens} tokens{cost}"
    )
    if engine.refused_fields:
        fields = ", ".join(sorted(engine.refused_fields))
        return Finding(role, "warn", f"{said}; it refuses {fields}, without which it is asked", "No more is needed.")
    return Finding(role, "ok", said)


def _structured(config: OpenAIEngine, role: str, engine: OpenAI, reply: Reply) -> Finding:
    name = f"{role}, structured output"
    if not config.structured_outputs:
        return Finding(name, "ok", f"not asked for ({role}.structured_outputs is false)")
    text = reply.samples[0].text
    if "response_format" in engine.refused_fields:
        advice = f"Replies are read out of plain text; set {role}.structured_outputs to false to spare the first call."
        return Finding(name, "warn", "the endpoint takes no JSON schema", advice)
    try:
        kept = json.loads(text).get("answer") in ("yes", "no")
    except (ValueError, AttributeError):
        kept = False
    if kept:
        return Finding(name, "ok", "the reply followed its JSON schema")
    cut = f" (finish reason: {reply.samples[0].finish_reason})"
    advice = f"Expect more rejects (`status` counts them), or set {role}.structured_outputs to false."
    return Finding(name, "warn", f"the reply did not follow its JSON schema{cut}: {text[:80]!r}", advice)


def _logprobs(role: str, reply: Reply, judges: bool) -> Finding:
    name = f"{role}, log-probabilities"
    if reply.samples[0].logprobs:
        return Finding(name, "ok", f"the {len(reply.samples[0].logprobs)} likeliest first tokens are told")
    if judges:
        return Finding(name, "fail", "none are told, and score.llm judges by them", "Leave score.llm out.")
    return Finding(name, "ok", "none are told; only score.llm would need them")


def _limits(role: str, engine: OpenAI) -> Iterator[Finding]:
    if engine.rate_limits:
        told = ", ".join(f"{name} {value}" for name, value in sorted(engine.rate_limits.items()))
        yield Finding(f"{role}, limits", "ok", told)
    else:
        yield Finding(f"{role}, limits", "ok", "none are told; calls slow down by themselves at a 429")


def _silent(config: OpenAIEngine, role: str) -> Finding:
    advice = f"See the lines above; ask {config.base_url} yourself, or another model as {role}.model."
    return Finding(
        role, "fail", f"{config.model} gave no answer within {SECONDS:.0f} s, or pushed back all the time", advice
    )


def _split(message: str) -> tuple[str, str]:
    """Split an error of ours into what happened and what to do."""
    found, _, advice = message.partition("\n")
    return found, advice.replace("\n", " ")
