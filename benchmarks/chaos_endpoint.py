"""Fourteen kinds of endpoints' answers in one, and workers that are killed: every row ends once, within the budget.

    python -m benchmarks.chaos_endpoint --rounds 50 --seed 7        (as `make chaos-endpoint` does)

A round is a small job of its own, whose calls go to a server in this process that answers in the manner of OpenAI,
Azure, vLLM, llama.cpp, Groq, OpenRouter, Mistral, Gemini, xAI and others, well or not, and counts what it would bill.
One or two worker processes answer the job's shards, without Ray, and are killed with SIGKILL at random; a budget that
is used up is raised. In the end every row must have ended once, and charged must be at least what was billed, at most
the budget, and above the billed only by what killed workers had reserved and by answers that were lost.
"""

import asyncio
import itertools
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from benchmarks import report
from benchmarks.mock_endpoint import completion
from speed_ray import engines, recipes
from speed_ray.engines import openai
from speed_ray.engines.base import BudgetExhausted
from speed_ray.executor import shard_worker
from speed_ray.executor.usage import open_ledger, spending_of
from speed_ray.stages.synthesize import Synthesize
from speed_ray.storage.planned_rows import Inputs
from speed_ray.storage.run import EXAMPLES, Run
from speed_ray.storage.verify import verify
from tests.conftest import Job, small_job

ROWS, SHARD_ROWS, IN_FLIGHT = 69, 8, 8
ROUND_SECONDS = 240.0
EXHAUSTED = 3

Body = dict[str, Any]
Answer = tuple[int, Any, bool]  # status, document or bytes, whether the endpoint bills it


def _good(body: Body) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(completion(body, body["messages"][-1]["content"], tokens=120))
    return answer


def _with_message(body: Body, change: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    answer = _good(body)
    answer["choices"] = [{**choice, "message": change(choice["message"])} for choice in answer["choices"]]
    return answer


def _refusal(status: int, message: str, code: str = "") -> Answer:
    return status, {"error": {"message": message, "code": code}}, False


def _streamed(body: Body) -> bytes:
    answer = _good(body)
    text = answer["choices"][0]["message"]["content"]
    chunks: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": "stop"}]}]
    chunks.append({"choices": [], "usage": answer["usage"]})
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks).encode() + b"data: [DONE]\n\n"


ANSWERS: dict[str, Callable[[Body], Answer]] = {
    "OpenAI": lambda body: (200, _good(body), True),
    "OpenAI, rate limit": lambda body: _refusal(429, "Rate limit reached on requests per min", "rate_limit_exceeded"),
    "Azure, filtered": lambda body: _refusal(400, "the content management policy", "content_filter"),
    "OpenAI, refusal": lambda body: (200, _with_message(body, lambda _: {"content": None, "refusal": "No."}), True),
    "vLLM, busy": lambda body: _refusal(503, "Service Unavailable"),
    "llama.cpp, too long": lambda body: _refusal(400, "the request exceeds the available context size"),
    "Groq, no JSON": lambda body: (
        400,
        {"error": {"message": "Failed to generate JSON", "code": "json_validate_failed", "failed_generation": "{"}},
        True,
    ),
    "OpenRouter, error in a 200": lambda body: (200, {"error": {"code": 502, "message": "Provider error"}}, False),
    "OpenRouter, no choices": lambda body: (200, {**_good(body), "choices": []}, True),
    "Mistral, parts": lambda body: (
        200,
        _with_message(body, lambda message: {"content": [{"type": "text", "text": message["content"]}]}),
        True,
    ),
    "Gemini, no seed": lambda body: (
        _refusal(400, 'Unknown name "seed"') if "seed" in body else (200, _good(body), True)
    ),
    "xAI, thoughts in the total": lambda body: (
        200,
        {**_good(body), "usage": {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 400}},
        True,
    ),
    "nginx, gave up": lambda body: (504, b"<html>504 Gateway Time-out</html>", True),
    "streams unasked": lambda body: (200, _streamed(body), True),
}
UNKNOWN_COST = ("Azure, filtered", "OpenRouter, error in a 200")  # as some bill it
WEIGHTS = (12, *[1] * (len(ANSWERS) - 1))


class Server:
    """Answers each request in a drawn manner, and counts what it bills."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.billed = 0
        self.only_charged = 0  # not billed, in a manner that a client cannot know
        self.manners: Counter[str] = Counter()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Draw a manner; a tenth of the answers is lost on the way."""
        body = await request.json()
        [manner] = self.rng.choices(list(ANSWERS), WEIGHTS)
        self.manners[manner] += 1
        status, document, billed = ANSWERS[manner](body)
        self.billed += billed
        lost = self.rng.random() < 0.1
        self.only_charged += not billed and (lost or manner in UNKNOWN_COST)
        await asyncio.sleep(self.rng.uniform(0, 0.1))
        if lost and request.transport:
            request.transport.abort()
        if isinstance(document, bytes):
            return web.Response(status=status, body=document)
        return web.json_response(document, status=status)


def work(uri: str, overrides: list[str]) -> int:
    """Answer all pending shards as one worker process; return the exit code."""
    openai.FIRST_BACKOFF, openai.LONGEST_BACKOFF, shard_worker.LEASE_POLL_SECONDS = 0.01, 0.1, 0.05
    run, recipe = Run(uri), recipes.load_recipe("miniature", overrides)
    stage = Synthesize(recipe)
    plan, artifact = stage.plan(run), run.artifact(EXAMPLES)
    artifact.ensure_plan(plan)
    ledger = open_ledger(run, recipe.generator, "generator")
    engine = engines.build_engine([recipe.generator], ledger, "generator")
    assert plan.input
    worker = shard_worker.Worker(stage, artifact, plan, Inputs(run.artifact(plan.input), plan), engine, ledger)

    async def answer() -> None:
        await engine.start()
        try:
            await asyncio.gather(*(worker.work(*pending) for pending in artifact.pending(plan)))
        finally:
            await engine.close()

    try:
        asyncio.run(answer())
    except BudgetExhausted:
        return EXHAUSTED
    return 0 if artifact.manifest() or artifact.publish(plan) else 1


def round_of(number: int, seed: int, folder: Path) -> dict[str, Any]:
    """Play one round; raise AssertionError where the promise does not hold."""
    job = small_job(folder, f"round-{number}", synthesize__examples=ROWS, synthesize__shard_rows=SHARD_ROWS).begin()
    return asyncio.run(_play(number, random.Random(f"{seed} {number}"), job))


async def _play(number: int, rng: random.Random, job: Job) -> dict[str, Any]:
    server = Server(rng)
    application = web.Application(client_max_size=1 << 24)
    application.router.add_post("/v1/chat/completions", server.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    budget, kills, began = rng.choice([40, 120, 2_000]), rng.randint(0, 3), time.monotonic()
    left = kills
    for _ in itertools.count():
        engine = {"engine": "openai", "model": "m", "base_url": url, "max_concurrency": IN_FLIGHT}
        job.settings["generator"] = {**engine, "budget": {"calls": budget}}
        workers = [await _start(job) for _ in range(rng.randint(1, 2))]
        if left:
            moment = server.manners.total() + rng.randint(3, 40)
            while server.manners.total() < moment and any(worker.returncode is None for worker in workers):
                await asyncio.sleep(0.01)
            victims = [worker for worker in workers if worker.returncode is None]
            for victim in victims[:1]:
                victim.kill()
            left -= 1
        codes = [await asyncio.wait_for(worker.wait(), ROUND_SECONDS) for worker in workers]
        assert set(codes) <= {0, EXHAUSTED, -9}, f"round {number}: workers ended with {codes}"
        charged = spending_of(job.run, "generator").balance().charged.calls
        assert server.billed <= charged <= budget, f"round {number}: {server.billed} billed, {charged} of {budget}"
        if 0 in codes and not left:
            break
        budget = budget + 100 if EXHAUSTED in codes else budget
        assert time.monotonic() - began < ROUND_SECONDS, f"round {number}: no end"
    await runner.cleanup()
    assert all(verdict.holds for verdict in verify(job.run)), f"round {number}: rows are lost or doubled"
    balance = spending_of(job.run, "generator").balance()
    reserved = balance.charged.calls - balance.spent.calls
    beyond = balance.charged.calls - server.billed
    assert beyond <= reserved + server.only_charged, f"round {number}: {beyond} calls charged that were not made"
    return {
        "round": number, "kills": kills, "answers": server.manners.total(), "billed": server.billed,
        "charged": balance.charged.calls, "reserved by the killed": reserved, "budget": budget,
        "seconds": time.monotonic() - began,
    }  # fmt: skip


async def _start(job: Job) -> asyncio.subprocess.Process:
    command = [sys.executable, "-m", "benchmarks.chaos_endpoint", "--work", job.uri, *job.overrides]
    return await asyncio.create_subprocess_exec(*command)


def main() -> None:
    parser = report.options(__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", nargs="+", help="be a worker: a run's folder, then a recipe's overrides")
    options = parser.parse_args()
    if options.work:
        sys.exit(work(options.work[0], options.work[1:]))
    with tempfile.TemporaryDirectory() as folder:
        rounds = [round_of(number, options.seed, Path(folder)) for number in range(options.rounds)]
    report.emit_against(
        "<= 0", "chaos_endpoint", 0.0, "rounds in which the promise did not hold", rounds, options.json
    )


if __name__ == "__main__":
    main()
