"""Measure which of two runs writes better examples: a teacher compares pairs blindly.

A pair is what two runs made of one planned prompt: the same task in the same variant, which their ids tell. The order
in which a pair is shown is drawn from its id. What was compared once is kept in the run, so that it is paid once.
"""

import asyncio
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from speed_ray import engines, kinds
from speed_ray.engines.base import Engine, EngineDead, FatalEngineError, PromptTooLong, Reply, Request
from speed_ray.errors import Interrupted, UserError
from speed_ray.evaluation import quality
from speed_ray.executor.stage import artifact_identity
from speed_ray.executor.usage import usage_of
from speed_ray.prompts.parse import parse_verdict, verdict_schema
from speed_ray.prompts.render import Prompts
from speed_ray.recipes.schema import Recipe
from speed_ray.records import ExampleRow, Rejected, content_id, seed_of
from speed_ray.stages.example_request import SYNTHESIZE, from_columns, prompt_context, sample_slots, to_json
from speed_ray.storage.fingerprint import model_label
from speed_ray.storage.run import Run
from speed_ray.storage.store import read_if_exists

PAIRS = 200  # a teacher may cost money: they give the share to about 3.5 percent


@dataclass(frozen=True)
class Wins:
    """Counts how often the teacher preferred each run's example. An unparsable verdict counts for neither."""

    judge: str
    compared: int
    won: int
    unread: int
    alike: int  # pairs of one text twice, which nobody was asked about

    @property
    def rate(self) -> float:
        """Share of the verdicts that could be read."""
        return self.won / self.compared if self.compared else 0.5

    @property
    def error(self) -> float:
        """Its standard error."""
        return (self.rate * (1 - self.rate) / self.compared) ** 0.5 if self.compared else 0.5


def measure_win_rate(run: Run, against: Run, name: str) -> Wins:
    """Have the first run's teacher compare two runs' artifacts of one name.

    Raises UserError before both are finished, where they have no prompt in common, and where the teacher refuses.
    """
    recipe = run.recipe()
    contents = [artifact_identity(each.artifact(name))["sha256"] for each in (run, against)]
    path = f"evaluation/against-{content_id(*contents, model_label(recipe.teacher))[:16]}.json"
    if kept := read_if_exists(run.store, path):
        return Wins(**json.loads(kept))
    pairs = list(_pairs(run, against, name))[:PAIRS]
    if not pairs:
        raise UserError(
            f"{run.uri} and {against.uri} have no prompt in common: nothing of {name} can be compared.\n"
            "Runs share prompts when they have the same tasks and the same seed."
        )
    differing = [pair for pair in pairs if _texts(pair[0]) != _texts(pair[1])]
    requests = [_request(recipe, pair) for pair in differing]
    engine = engines.build_engine([recipe.teacher], usage_of(run, "teacher"), "teacher")
    replies = asyncio.run(_answers(engine, requests))
    won = [_won(request, reply) for request, reply in zip(requests, replies, strict=True)]
    read = [each for each in won if each is not None]
    found = Wins(model_label(recipe.teacher), len(read), sum(read), len(won) - len(read), len(pairs) - len(won))
    run.store.put(path, json.dumps(asdict(found)).encode())
    return found


def _pairs(run: Run, against: Run, name: str) -> Iterator[tuple[ExampleRow, ExampleRow]]:
    first = {row["id"]: row for row in quality.sample_rows(run.artifact(name))}
    others = {row["id"]: row for row in quality.example_rows(against.artifact(name)) if row["id"] in first}
    for row_id, row in first.items():
        if row_id in others and others[row_id]["language"] == row["language"]:
            yield row, others[row_id]


def _texts(row: ExampleRow) -> list[str]:
    return [row["query"], row["positive"], *row["negatives"]]


def _request(recipe: Recipe, pair: tuple[ExampleRow, ExampleRow]) -> Request:
    row = pair[0]
    kind, topic = kinds.load_kind(row["kind"]), row["topic"]
    task = topic if kind.instruction else row["instruction"]
    slots, language, _ = sample_slots(recipe, kind, row["id"], SYNTHESIZE)
    rng = random.Random(seed_of(recipe.seed, row["id"], "against"))
    order = rng.sample((0, 1), 2)
    shown = [from_columns(kind, pair[place]) for place in order]
    context = prompt_context("judge", kind, topic, task, slots, language)
    return Request(
        row_id=row["id"],
        messages=Prompts(recipe.prompts).judge(kind, slots, topic, task, language, list(map(to_json, shown)), rng),
        **recipe.judge.sampling.model_dump(),
        schema=verdict_schema(len(shown)),
        context={**context, "candidates": shown, "order": order},
    )


async def _answers(engine: Engine, requests: Sequence[Request]) -> list[Reply | None]:
    turn = asyncio.Semaphore(engine.in_flight)

    async def answer(request: Request) -> Reply | None:
        async with turn:
            try:
                return await engine.generate(request)
            except PromptTooLong:
                return None

    try:
        await engine.start()
        return await asyncio.gather(*map(answer, requests))
    except FatalEngineError as error:
        raise UserError(f"teacher: {error}") from error
    except EngineDead as error:
        raise Interrupted(f"teacher: the engine ended: {error}\nRun the same command again.") from error
    finally:
        await engine.close()


def _won(request: Request, reply: Reply | None) -> bool | None:
    try:
        best, _, _ = parse_verdict(reply.samples[0].text if reply else "", 2, request.messages)
    except Rejected:
        return None
    return bool(request.context["order"][best - 1] == 0)
