"""Measure which of two runs writes better examples: a teacher compares pairs blindly.

A pair is what two runs made of one prompt. An id tells only the topic, the kind and two numbers: another teacher
thinks up another task under it, and another seed draws other slots, so these must be equal as well. The order in which
a pair is shown is drawn from its id. Replies are kept in the run as they come, so that each is paid once.
"""

import asyncio
import json
import random
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from speed_ray import engines, kinds
from speed_ray.engines.base import (
    BudgetExhausted,
    Engine,
    EngineDead,
    FatalEngineError,
    Reply,
    Request,
    RequestRefused,
)
from speed_ray.errors import Interrupted, UserError
from speed_ray.evaluation import quality
from speed_ray.executor.event_loop import run_to_end
from speed_ray.executor.reply_journal import Journal, replay
from speed_ray.executor.stage import artifact_identity
from speed_ray.executor.usage import open_ledger
from speed_ray.prompts.parse import parse_verdict, verdict_schema
from speed_ray.prompts.render import load_prompts
from speed_ray.recipes.schema import Recipe
from speed_ray.records import ExampleRow, Rejected, content_id, seed_of
from speed_ray.stages.example_request import SYNTHESIZE, from_columns, prompt_context, sample_slots, to_json
from speed_ray.storage.fingerprint import model_label
from speed_ray.storage.run import Run

PAIRS = 200  # a teacher may cost money: they give the share to about 3.5 percent
REPLIES = "evaluation/comparisons"  # a folder of the run, of one shard


@dataclass(frozen=True)
class Pairing:
    """Hold the pairs to compare, and how many of the first run's sampled examples are in none, by the reason."""

    pairs: list[tuple[ExampleRow, ExampleRow]]
    other_prompt: int  # the other run wrote its example for another task, topic, language or slots
    missing: int  # the other run has none
    beyond: int  # pairs after the first `PAIRS`


@dataclass(frozen=True)
class Wins:
    """Counts how often the teacher preferred each run's example. An unparsable verdict counts for neither."""

    judge: str
    compared: int
    won: int
    unread: int
    alike: int  # pairs of one text twice, which nobody was asked about
    pairing: Pairing

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
    for each in (run, against):
        artifact_identity(each.artifact(name))
    pairing = pair_examples(run, against, name)
    if not pairing.pairs:
        raise UserError(
            f"{run.uri} and {against.uri} have no prompt in common: nothing of {name} can be compared.\n"
            f"{pairing.other_prompt:,} examples have one id in both, but another task, language or slots; "
            f"{pairing.missing:,} are in the first alone.\n"
            "Runs share prompts when they have the same tasks, languages, slots and seed."
        )
    requests = {
        _key(recipe, request): request
        for request in (_request(recipe, pair) for pair in pairing.pairs if _texts(pair[0]) != _texts(pair[1]))
    }
    replies = _replies(run, recipe, requests)
    won = [_won(request, replies.get(key)) for key, request in requests.items()]
    read = [each for each in won if each is not None]
    return Wins(
        judge=model_label(recipe.teacher),
        compared=len(read),
        won=sum(read),
        unread=len(won) - len(read),
        alike=len(pairing.pairs) - len(won),
        pairing=pairing,
    )


def pair_examples(run: Run, against: Run, name: str) -> Pairing:
    """Pair the first run's sampled examples with those that the other wrote for the same prompts."""
    first = {row["id"]: row for row in quality.sample_rows(run.artifact(name))}
    others = {row["id"]: row for row in quality.example_rows(against.artifact(name)) if row["id"] in first}
    recipes = run.recipe(), against.recipe()
    of_one_id = [(row, others[row_id]) for row_id, row in first.items() if row_id in others]
    pairs = [pair for pair in of_one_id if _prompt(recipes[0], pair[0]) == _prompt(recipes[1], pair[1])]
    return Pairing(
        pairs=pairs[:PAIRS],
        other_prompt=len(of_one_id) - len(pairs),
        missing=len(first) - len(of_one_id),
        beyond=max(0, len(pairs) - PAIRS),
    )


def _prompt(recipe: Recipe, row: ExampleRow) -> tuple[Any, ...]:
    """Return all that varies in the prompt for an example."""
    slots, language, _ = sample_slots(recipe, kinds.load_kind(row["kind"]), row["id"], SYNTHESIZE)
    return row["kind"], row["topic"], row["instruction"], row["language"], language, slots


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
        messages=load_prompts(recipe.prompts).judge(
            kind, slots, topic, task, language, list(map(to_json, shown)), rng
        ),
        **recipe.judge.sampling.model_dump(),
        schema=verdict_schema(len(shown)),
        context={**context, "candidates": shown, "order": order},
    )


def _key(recipe: Recipe, request: Request) -> str:
    """Identify a request by all that decides its reply: one that was asked in other words is asked again."""
    sampling = recipe.judge.sampling.model_dump()
    return content_id(request.row_id, model_label(recipe.teacher), json.dumps([request.messages, sampling]))


def _replies(run: Run, recipe: Recipe, requests: Mapping[str, Request]) -> dict[str, Reply]:
    """Return the replies by their requests' keys: those that the run holds, and those that the teacher gives now."""
    folder = run.artifact(REPLIES)
    known = {key: reply for (key, _), reply in replay(folder, 0).items()}
    missing = {key: request for key, request in requests.items() if key not in known}
    if missing:
        ledger = open_ledger(run, recipe.teacher, "teacher")
        engine = engines.build_engine([recipe.teacher], ledger, "teacher")
        try:
            known |= run_to_end(_ask(engine, missing, Journal(folder, 0, uuid.uuid4().hex)))
        except BudgetExhausted as error:
            raise Interrupted(str(error)) from error
        except FatalEngineError as error:
            raise UserError(f"teacher: {error}") from error
        except EngineDead as error:
            raise Interrupted(f"teacher: the engine ended: {error}\nRun the same command again.") from error
        finally:
            if ledger:
                ledger.holder.close()
    return known


async def _ask(engine: Engine, requests: Mapping[str, Request], journal: Journal) -> dict[str, Reply]:
    """Ask all requests, and keep each reply. After a failure none is begun, and what is in flight is waited for."""
    turn = asyncio.Semaphore(engine.in_flight)
    replies: dict[str, Reply] = {}
    failures: list[Exception] = []

    async def answer(key: str, request: Request) -> None:
        async with turn:
            if failures:
                return
            try:
                replies[key] = await engine.generate(request)
            except RequestRefused:
                return  # counts as a verdict that cannot be read
            except Exception as error:
                failures.append(error)
                return
            await journal.add(key, 0, replies[key])

    await engine.start()
    try:
        await asyncio.gather(*(answer(key, request) for key, request in requests.items()))
    finally:
        await journal.flush()
        await engine.close()
    if failures:
        raise failures[0]
    return replies


def _won(request: Request, reply: Reply | None) -> bool | None:
    try:
        best, _, _ = parse_verdict(reply.samples[0].text if reply else "", 2, request.messages)
    except Rejected:
        return None
    return bool(request.context["order"][best - 1] == 0)
