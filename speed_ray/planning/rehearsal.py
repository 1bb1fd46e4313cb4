"""Rehearse a recipe: its stages answer a few rows each, in order, by models that are paid for or by free guesses.

A rehearsal is a small run, its rows are rows of the whole one, its replies are kept, and a run below which it lies
takes them over. Models that a run is yet to train are not asked: what the teacher wrote stands for what they learn to
write.
"""

import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from speed_ray import engines
from speed_ray.engines.base import BudgetExhausted, Engine, EngineDead, FatalEngineError, Request
from speed_ray.engines.budget import Ledger
from speed_ray.engines.fake_text import fake_reply
from speed_ray.errors import Interrupted, UserError
from speed_ray.executor.event_loop import run_to_end
from speed_ray.executor.preflight import check_api_key
from speed_ray.executor.shard_worker import Worker
from speed_ray.executor.stage import Stage
from speed_ray.executor.usage import open_ledger
from speed_ray.planning import stand_ins
from speed_ray.planning.guessing_engine import free_engine, is_known
from speed_ray.planning.inputs import take_few
from speed_ray.planning.row_facts import RowFact, read_facts
from speed_ray.planning.token_counter import TokenCounter, counter_of
from speed_ray.recipes.engine_settings import EngineConfig, VllmEngine
from speed_ray.recipes.needed_jobs import needed_jobs
from speed_ray.recipes.schema import Evaluate, Recipe
from speed_ray.recipes.stage_settings import StageSettings
from speed_ray.records import Rejected
from speed_ray.stages import language_models
from speed_ray.stages.brainstorm import Brainstorm
from speed_ray.stages.critique import Critique
from speed_ray.stages.draft import Draft
from speed_ray.stages.judge import Judge
from speed_ray.stages.propose import Propose
from speed_ray.stages.revise import Revise
from speed_ray.stages.rewrite import Rewrite
from speed_ray.stages.select_tasks import select_tasks
from speed_ray.stages.self_revise import SelfRevise
from speed_ray.stages.synthesize import Synthesize
from speed_ray.storage.planned_rows import FollowedInputs, Inputs, PlannedRow
from speed_ray.storage.run import DRAFTS, EXAMPLES, REVISIONS, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import Artifact

SAMPLED, KNOWN, GUESSED, LIKE_TEACHER = "sampled", "known", "guessed", "as the teacher's"
Texts = dict[str, list[str]]


@dataclass(frozen=True)
class Rehearsed:
    """Holds a stage with what its rows took, and how that is known."""

    stage: Stage[Any, Any]
    facts: list[RowFact]
    basis: str
    counter: TokenCounter
    row_bytes: float = 0.0  # of its files; 0 where none were written
    tokens_a_second: float = 0.0  # of output by one engine; 0 where no model was timed


class Rehearsal:
    """Walks through a recipe's stages on `rows` rows of each kind."""

    def __init__(self, recipe: Recipe, source: Run, small: Run, rows: int, asks: bool) -> None:
        """Prepare it in a small run. `asks`: models are, or were, and what they take is paid; else all is free."""
        self.small, self.asks = small, asks
        few = small_recipe(recipe, rows)
        self.recipe = few if asks else _guessed(without_weights(few))
        self.found: dict[str, Rehearsed] = {}
        self.unknown: list[str] = []  # why stages could not be rehearsed
        self._whole, self._source, self._rows = recipe, source, rows
        self._counters: dict[str, TokenCounter] = {}

    def walk(self) -> dict[str, Rehearsed]:
        """Rehearse all stages that the recipe needs; return them by their artifacts, in order."""
        jobs, about_each = needed_jobs(self._whole), _kinds(self.recipe) if self.recipe.is_grounded else 1
        take_few(self._source, self.small, self._whole, self._rows * about_each)
        try:
            self._walk(jobs)
        except UserError as error:
            if self.asks:
                raise
            self.unknown.append(f"{error}".splitlines()[0])  # of a stage before, guesses left no row
        return self.found

    def _walk(self, jobs: list[str]) -> None:
        recipe = self.recipe
        if "brainstorm" in jobs:
            self._make(Brainstorm(recipe))
            select_tasks(self.small, recipe)
        if "align_junior" in jobs and recipe.draft.lessons == "teacher":
            self._make(Draft(recipe))
        if {"align_senior", "align_revisor"} & set(jobs):
            self._foresee(Propose(recipe), DRAFTS)
        if DRAFTS in self.found and not recipe.is_grounded:
            self._align(jobs)
        if recipe.synthesize.generator == "base":
            self._make(Synthesize(recipe))
        else:
            self._foresee(Synthesize(recipe), DRAFTS)
            if DRAFTS in self.found and not recipe.is_grounded:
                stand_ins.examples_of_drafts(self.small, recipe)
        if self.small.artifact(EXAMPLES).manifest() is not None:
            self._after_examples(jobs)

    def _align(self, jobs: list[str]) -> None:
        recipe = self.recipe
        if {"align_senior", "align_revisor"} & set(jobs):
            stand_ins.lists_of_drafts(self.small, recipe)
        if "align_senior" in jobs and recipe.judge.engine == "teacher":
            self._make(Judge(recipe))
        if "align_revisor" in jobs:
            self._make(Critique(recipe))
            if recipe.revisor.dpo:
                self._foresee(SelfRevise(recipe), REVISIONS)

    def _after_examples(self, jobs: list[str]) -> None:
        if "align_revisor" in jobs:
            self._foresee(Revise(self.recipe), REVISIONS)
        elif self.recipe.synthesize.revise:
            stand_ins.ranked_as_late(self.small, self.recipe)
            self._foresee(Rewrite(self.recipe), EXAMPLES)
        if "score" in jobs:
            stand_ins.curated_as_written(self.small)
            for stage in (stage for group in language_models.stages_of(self.recipe) for stage in group):
                self._foresee(stage, "")

    def _make(self, stage: Stage[Any, Any]) -> None:
        """Have a stage's rows answered and read what that took."""
        plan, artifact, counter = stage.plan(self.small), self.small.artifact(stage.name), self._counter(stage)
        known = is_known(stage.engine)
        if artifact.manifest() is None:
            if known or not self.asks:
                answer_here(self.small, stage, plan, free_engine(stage.engine, counter), None)
            elif isinstance(stage.engine, VllmEngine):
                _answer_on_ray(self.small, stage, plan)
            else:
                answer_paid(self.small, stage, plan)
        facts = read_facts(artifact, None if counter.is_exact else counter.prompt)
        basis = KNOWN if known else SAMPLED if self.asks else GUESSED
        speed = _tokens_a_second(artifact) if basis == SAMPLED else 0.0
        self.found[stage.name] = Rehearsed(stage, facts, basis, counter, _row_bytes(artifact, plan), speed)

    def _foresee(self, stage: Stage[Any, Any], like: str) -> None:
        """Render a stage's prompts; take their replies to be as long as those of another stage, or guess."""
        try:
            plan = _plan_small(stage, self.small)
        except UserError as error:  # its inputs are no part of a rehearsal: the corpus of a recipe of topics
            self.unknown.append(f"{stage.name}: {error}".splitlines()[0])
            return
        counter, teacher = self._counter(stage), self.found.get(like)
        texts = _replies_by_kind(self.small.artifact(like)) if teacher else {}
        facts = list(_foreseen(stage, self.small, plan, counter, texts, teacher.facts if teacher else []))
        logprobs = stage.key.startswith("score.")  # a reply is one token
        guessed = teacher is None or teacher.basis == GUESSED
        basis = KNOWN if logprobs else GUESSED if guessed else LIKE_TEACHER
        row_bytes = teacher.row_bytes if teacher else 0.0
        self.found[stage.name] = Rehearsed(stage, facts, basis, counter, row_bytes)

    def _counter(self, stage: Stage[Any, Any]) -> TokenCounter:
        if stage.role not in self._counters:
            self._counters[stage.role] = counter_of(getattr(self._whole, stage.role), stage.role)
        return self._counters[stage.role]


def small_recipe(recipe: Recipe, rows: int) -> Recipe:
    """Return the recipe that asks for so many rows of each kind, with one engine a stage, and trains nothing."""
    asked = rows * _kinds(recipe)
    mix = recipe.mix if recipe.is_grounded else {kind: int(weight > 0) for kind, weight in recipe.mix.items()}
    sizes = {"draft": {"examples": asked}, "propose": {"lists": asked}, "synthesize": {"examples": asked}}
    stages: dict[str, Any] = {}
    for name in ("brainstorm", "draft", "propose", "judge", "critique", "synthesize", "revise"):
        settings: StageSettings = getattr(recipe, name)
        pool = settings.pool.model_copy(update={"min_size": 1, "max_size": 1})
        stages[name] = settings.model_copy(update={"pool": pool, **sizes.get(name, {})})
    return recipe.model_copy(update={**stages, "mix": mix, "embedder": None, "evaluate": Evaluate()})


def without_weights(recipe: Recipe) -> Recipe:
    """Return a recipe whose stages can be planned without the models of vLLM, which need not be there."""
    engines: dict[str, EngineConfig] = {"teacher": recipe.teacher, "generator": recipe.generator}
    nowhere = {"model": "no/model", "adapter": None}
    changed = {
        role: config.model_copy(update=nowhere) for role, config in engines.items() if isinstance(config, VllmEngine)
    }
    return recipe.model_copy(update=changed)


def _guessed(recipe: Recipe) -> Recipe:
    """Return a recipe for guesses, which are in English, and of which one that fails its checks says nothing."""
    changed: dict[str, Any] = {"languages": {"English": 1}}
    for stage in (Brainstorm, Draft, Propose, Judge, Critique, Synthesize, Revise):
        if not is_known(getattr(recipe, stage.role)):
            changed[stage.key] = getattr(recipe, stage.key).model_copy(update={"max_retries": 0})
    return recipe.model_copy(update=changed)


def _kinds(recipe: Recipe) -> int:
    return sum(weight > 0 for weight in recipe.mix.values())


def answer_here(run: Run, stage: Stage[Any, Any], plan: Plan, engine: Engine, ledger: Ledger | None) -> None:
    """Commit and publish all of a stage's rows in this process, without Ray."""
    artifact, inputs = run.artifact(stage.name), _inputs(run, plan)
    artifact.ensure_plan(plan)
    worker = Worker(stage, artifact, plan, inputs, engine, ledger)

    async def answer() -> None:
        await engine.start()
        try:
            for shard, generation in artifact.pending(plan):
                await worker.work(shard, generation)
        finally:
            await engine.close()

    run_to_end(answer())
    artifact.publish(plan)


def answer_paid(run: Run, stage: Stage[Any, Any], plan: Plan) -> None:
    """Have all of a stage's rows answered by its endpoint, in this process."""
    check_api_key(stage.engine, stage.role)
    ledger = open_ledger(run, stage.engine, stage.role)
    try:
        answer_here(run, stage, plan, engines.build_engine([stage.engine], ledger, stage.role), ledger)
    except FatalEngineError as error:  # a spent budget is one as well
        raise (Interrupted if isinstance(error, BudgetExhausted) else UserError)(str(error)) from error
    except EngineDead as error:
        raise Interrupted(str(error)) from error
    finally:
        if ledger:
            ledger.holder.close()


def _answer_on_ray(run: Run, stage: Stage[Any, Any], plan: Plan) -> None:
    from speed_ray.on_ray import pool  # places the engine where its GPU is

    pool.execute(run, pool.Step(plan, stage))


def _inputs(run: Run, plan: Plan) -> Inputs | FollowedInputs:
    assert plan.input is not None
    source = run.artifact(plan.input)
    return Inputs(source, plan) if plan.variants or plan.mix else FollowedInputs(source)


def _plan_small(stage: Stage[Any, Any], run: Run) -> Plan:
    if isinstance(stage, Revise):  # follows a plan, and a stand-in has one
        return stage.plan(run, run.artifact(EXAMPLES).plan())
    return stage.plan(run)


def _foreseen(
    stage: Stage[Any, Any], run: Run, plan: Plan, counter: TokenCounter, texts: Texts, like: list[RowFact]
) -> Iterator[RowFact]:
    """Yield what each row takes, of replies as long as texts of its kind, and asked as often as rows `like` it."""
    inputs = _inputs(run, plan)
    known = {kind: cycle(of_kind) for kind, of_kind in texts.items()}
    trials = {kind: cycle([fact for fact in like if fact.kind == kind]) for kind in {fact.kind for fact in like}}
    for row in (row for shard in range(plan.shards) for row in inputs.of_shard(shard)):
        request, kind = stage.request(row), stage.kind_of(row)
        if request is None:
            yield RowFact(kind, 0, 0.0, 0.0, 0.0, records=_records_without_model(stage, row))
            continue
        similar = next(trials[kind]) if kind in trials else None
        calls = similar.calls if similar and request.n == 1 else 1
        reply = _reply_tokens(request, counter, known.get(kind))
        prompt = counter.prompt(request.messages)
        yield RowFact(
            kind,
            calls,
            calls * prompt,
            calls * reply,
            0.0,
            records=int(request.n > 1 or not similar or similar.records > 0),
        )


def _records_without_model(stage: Stage[Any, Any], row: PlannedRow[Any]) -> int:
    try:
        return len(stage.without_model(row))
    except Rejected:
        return 0


def _reply_tokens(request: Request, counter: TokenCounter, known: Iterator[str] | None) -> int:
    """Count the tokens of a reply like the next known texts or, without any, like what the prompt asks for."""
    if request.logprobs:
        return 1
    if known:
        return sum(counter.text(next(known)) for _ in range(request.n))
    rng = random.Random(request.seed)
    return sum(counter.text(fake_reply(request.schema, rng, request.context)) for _ in range(request.n))


def _replies_by_kind(artifact: Artifact) -> Texts:
    texts: Texts = defaultdict(list)
    for row in artifact.records():
        texts[row["kind"]].append(row.get("reply") or row["query"])  # about passages a query is all of a reply
    return dict(texts)


def _row_bytes(artifact: Artifact, plan: Plan) -> float:
    stored = sum(file.bytes for commit in artifact.commits() for file in commit.files.values())
    return stored / max(1, plan.rows)


def _tokens_a_second(artifact: Artifact) -> float:
    commits = list(artifact.commits())
    seconds = max(commit.finished for commit in commits) - min(commit.started for commit in commits)
    return sum(commit.counts.output_tokens for commit in commits) / max(seconds, 1e-3)
