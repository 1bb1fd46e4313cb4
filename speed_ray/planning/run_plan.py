"""Foretell what every stage of a recipe takes."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from speed_ray.executor.stage import Stage
from speed_ray.executor.usage import usage_of_all
from speed_ray.planning.inputs import read_inputs, run_in_memory
from speed_ray.planning.rehearsal import GUESSED, KNOWN, SAMPLED, Rehearsal, Rehearsed, without_weights
from speed_ray.planning.row_facts import RowFact, read_facts
from speed_ray.planning.samples import Sample, find_sample, finish_sample, new_sample
from speed_ray.planning.stage_price import Interval, StageTokens, tokens_of
from speed_ray.planning.storage_load import StorageLoad, storage_load
from speed_ray.planning.throughput import Pace, Work, pace_of
from speed_ray.planning.token_counter import TokenCounter
from speed_ray.planning.whole_rows import WholeRows, render_prompts
from speed_ray.recipes.engine_settings import OpenAIEngine
from speed_ray.recipes.schema import Recipe
from speed_ray.storage.run import PRODUCED_BY, REVISIONS, VERDICTS, Run
from speed_ray.storage.shards import Artifact, Counts
from speed_ray.storage.spending import Usage

GUESSED_ON = 8  # rows a kind of a rehearsal that costs nothing
MEASURED_SHARDS, MEASURED_ROWS = 8, 32  # of the run's own rows: so many are read, from so many on they count
DONE = "done"


@dataclass(frozen=True)
class StagePlan:
    """Holds what one stage is to take. What is not known is None."""

    stage: str  # the artifact that it makes
    job: str
    role: str
    model: str
    rows: int
    calls: int
    retries: int
    prompt_tokens: int
    prompts: str  # how they are known: "exact", "rendered" (a part of them), or as the replies are
    output_tokens: Interval
    replies: str  # how they are known
    dollars: Interval | None
    hours: float | None  # of the pool as it is
    gpu_hours: float | None
    pace: str  # by what these are known
    storage: StorageLoad


@dataclass(frozen=True)
class RunPlan:
    """Holds what all stages are to take, and what of that is guessed."""

    stages: list[StagePlan]
    sampled: int | None  # real rows of each kind that it is told by
    notes: list[str]
    made: float = field(default_factory=time.time)

    @property
    def dollars(self) -> Interval:
        """Add up what all stages are to cost."""
        return sum_up([stage.dollars for stage in self.stages if stage.dollars])

    @property
    def hours(self) -> float:
        """Add up the hours of the stages of which they are known, one after another."""
        return sum(stage.hours or 0.0 for stage in self.stages)

    @property
    def gpu_hours(self) -> float:
        """Add up the GPU-hours that are known."""
        return sum(stage.gpu_hours or 0.0 for stage in self.stages)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values, with its sums."""
        sums = {"dollars": asdict(self.dollars), "hours": self.hours, "gpu_hours": self.gpu_hours}
        return {**asdict(self), **sums, "days": self.hours / 24}


def sum_up(intervals: list[Interval]) -> Interval:
    """Add intervals up."""
    total = Interval(0.0, 0.0, 0.0)
    for each in intervals:
        total = total.plus(each)
    return total


def plan_run(recipe: Recipe, run: Run | None = None, sample: int | None = None) -> RunPlan:
    """Foretell what a recipe takes, in a run that may be begun.

    With `sample` real models answer so many rows of each kind, which the run takes over later; without, a sample that
    the run has already counts, and else what can be guessed for nothing.
    """
    source = read_inputs(recipe, run)
    found = find_sample(recipe, source, run) if run else None
    if run and sample and not (found and found.rows >= sample):
        wanted = Sample(new_sample(recipe, source, run, sample), sample)
        answered = recipe.model_copy(update={"reuse": found.run.uri}) if found else recipe
        rehearsal = Rehearsal(answered, source, *wanted, asks=True)
        found = wanted
    elif found:
        rehearsal = Rehearsal(recipe, source, *found, asks=True)
    else:
        rehearsal = Rehearsal(recipe, source, run_in_memory(), GUESSED_ON, asks=False)
    rehearsed = rehearsal.walk()
    if sample and found:
        finish_sample(found.run)
    spent = usage_of_all(run) if run else {}
    whole = WholeRows(recipe, source)
    runs = list(dict.fromkeys(each for each in (run, source) if each))
    stages = []
    countable = without_weights(recipe)
    for name, each in rehearsed.items():
        own = run.artifact(name) if run else None
        stage = type(each.stage)(recipe)  # with the whole recipe's sizes and pools
        counted = type(stage)(countable)
        tokens, basis, prompts = _tokens(counted, each, whole, runs, own, spent.get(name, Usage()), bool(found))
        whole.records[name] = tokens.records
        stages.append(_stage_plan(stage, each, tokens, basis, prompts))
    return RunPlan(stages, found.rows if found else None, [*_notes(recipe, rehearsed), *rehearsal.unknown])


def _tokens(
    stage: Stage[Any, Any],
    each: Rehearsed,
    whole: WholeRows,
    runs: list[Run],
    own: Artifact | None,
    spent: Usage,
    is_sample: bool,
) -> tuple[StageTokens, str, str]:
    """Return what a stage takes, and how replies and prompts are known."""
    if own and own.manifest() is not None:
        return _as_done(own, spent), DONE, DONE
    facts, basis = each.facts, each.basis
    count = None if each.counter.is_exact else each.counter.prompt
    measured = read_facts(own, count, MEASURED_SHARDS) if own and own.plan() else []
    if len(measured) >= MEASURED_ROWS:
        facts, basis = measured, f"measured on {len(measured):,} rows of this run"
    rendered = render_prompts(stage, runs, each.counter)
    rows = rendered.kinds if rendered else whole.of(stage.name)
    ratio = _told_for_counted(facts, each.counter)
    prompts = {kind: mean * ratio for kind, mean in rendered.tokens.items()} if rendered else {}
    surplus = _surplus(stage.name, rows, facts) if is_sample and basis in (SAMPLED, KNOWN) else {}
    tokens = tokens_of(rows, facts, prompts, guessed=basis == GUESSED, surplus=surplus)
    if rendered is None:
        return tokens, basis, basis
    is_exact = rendered.are_all and each.counter.is_exact
    return tokens, basis, "exact" if is_exact else "all rendered" if rendered.are_all else "rendered in part"


def _surplus(name: str, rows: Mapping[str, float], sampled: list[RowFact]) -> dict[str, float]:
    """Count the sampled rows that the run does not have: of a kind of few rows, or about stand-ins."""
    answered = Counter(fact.kind for fact in sampled)
    about_stand_ins = name in (VERDICTS, REVISIONS)
    return {
        kind: number if about_stand_ins else max(0.0, number - rows.get(kind, 0)) for kind, number in answered.items()
    }


def _as_done(artifact: Artifact, spent: Usage) -> StageTokens:
    counts = sum((commit.counts for commit in artifact.commits()), Counts())
    output = float(spent.output_tokens)
    return StageTokens(
        rows=counts.accepted + counts.rejected,
        calls=spent.calls,
        retries=counts.retries,
        prompt_tokens=spent.prompt_tokens,
        output_tokens=Interval(output, output, output),
        records={kind: float(number) for kind, number in counts.kinds.items()},
        seconds_a_call=0.0,
    )


def _told_for_counted(facts: list[RowFact], counter: TokenCounter) -> float:
    """Return how many tokens the engine told for each that we counted: 1 by the engine's own tokenizer."""
    counted = sum(fact.counted for fact in facts)
    return sum(fact.prompt_tokens for fact in facts) / counted if counted and not counter.is_exact else 1.0


def _stage_plan(stage: Stage[Any, Any], each: Rehearsed, tokens: StageTokens, basis: str, prompts: str) -> StagePlan:
    config, settings, output = stage.engine, stage.settings, tokens.output_tokens.expected
    paid = isinstance(config, OpenAIEngine)
    work = Work(tokens.calls, tokens.prompt_tokens, output, tokens.seconds_a_call, each.tokens_a_second)
    pace = Pace(0.0, DONE) if basis == DONE else pace_of(config, settings.pool, work)
    hours = None if pace.seconds is None else pace.seconds / settings.pool.max_size / 3600
    return StagePlan(
        stage=stage.name,
        job=PRODUCED_BY[stage.name],
        role=stage.role,
        model=config.model,
        rows=round(tokens.rows),
        calls=round(tokens.calls),
        retries=round(tokens.retries),
        prompt_tokens=round(tokens.prompt_tokens),
        prompts=prompts,
        output_tokens=tokens.output_tokens,
        replies=basis,
        dollars=_dollars(config, tokens) if isinstance(config, OpenAIEngine) else None,
        hours=hours,
        gpu_hours=None if pace.seconds is None else pace.seconds * settings.pool.num_gpus / 3600,
        pace=pace.basis,
        storage=storage_load(tokens.rows, settings.shard_rows, each.row_bytes, tokens.calls if paid else 0.0),
    )


def _dollars(config: OpenAIEngine, tokens: StageTokens) -> Interval | None:
    if config.price is None:
        return None
    prompts = tokens.prompt_tokens * config.price.input / 1e6
    return tokens.output_tokens.times(config.price.output / 1e6).plus(Interval(prompts, prompts, prompts))


def _notes(recipe: Recipe, rehearsed: dict[str, Rehearsed]) -> list[str]:
    """Say what is not known, role by role."""
    notes = []
    for role in ("teacher", "generator"):
        stages = [each for each in rehearsed.values() if each.stage.role == role]
        if stages and not stages[0].counter.is_exact:
            notes.append(f"{role}: {stages[0].counter.basis}")
        config = getattr(recipe, role)
        if stages and isinstance(config, OpenAIEngine) and config.price is None:
            notes.append(f"{role}.price is not set, so no dollars are told of it")
    return notes
