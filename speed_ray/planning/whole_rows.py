"""Count the rows that each stage of a whole run will have, by kind, and the tokens of prompts that can be rendered."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from speed_ray import kinds
from speed_ray.errors import UserError
from speed_ray.executor.stage import Stage, count_records
from speed_ray.planning.token_counter import TokenCounter
from speed_ray.recipes.schema import Recipe
from speed_ray.stages.example_request import asked_about
from speed_ray.storage.planned_rows import Inputs, PlannedRow, weighted_round_robin
from speed_ray.storage.run import (
    CANDIDATES,
    CURATED_EXAMPLES,
    DRAFTS,
    EXAMPLES,
    FLUENCY,
    OWN_REVISIONS,
    PASSAGES,
    PROPOSED_TASKS,
    REFERENCE_FLUENCY,
    RELEVANCE,
    REVISED_EXAMPLES,
    REVISIONS,
    REWRITTEN_EXAMPLES,
    TOPICS,
    VERDICTS,
    Run,
)

RENDERED = 2_048  # prompts; of more rows so many are rendered, spread evenly: their mean is within a percent

ByKind = dict[str, float]


@dataclass(frozen=True)
class Prompts:
    """Holds the mean tokens of a prompt by kind, of rows whose inputs exist, and whether all were rendered."""

    tokens: ByKind
    kinds: ByKind  # rows by kind
    are_all: bool


class WholeRows:
    """Counts the rows of each stage, given how many records the stages before it leave."""

    def __init__(self, recipe: Recipe, source: Run) -> None:
        """Count for a recipe whose topics or passages are published in `source`."""
        self.recipe = recipe
        self.records: dict[str, Mapping[str, float]] = {}  # by artifact and kind, as they become known
        self._source = source

    def of(self, name: str) -> ByKind:
        """Return the rows by kind of the stage that makes an artifact. Those before it have their `records`."""
        recipe, records = self.recipe, self.records
        counts: dict[str, Callable[[], Mapping[str, float]]] = {
            PROPOSED_TASKS: self._topics,
            DRAFTS: lambda: self._prompts(recipe.draft.examples),
            CANDIDATES: lambda: self._prompts(recipe.propose.lists),
            VERDICTS: lambda: records[CANDIDATES],
            REVISIONS: lambda: _times(records[CANDIDATES], recipe.critique.candidates),
            OWN_REVISIONS: lambda: records[REVISIONS],
            EXAMPLES: lambda: self._prompts(recipe.synthesize.examples, recipe.synthesize.per_passage),
            REVISED_EXAMPLES: lambda: records[EXAMPLES],
            REWRITTEN_EXAMPLES: lambda: records[EXAMPLES],  # at most: those that find their passages late
            FLUENCY: lambda: _times(self._curated(), 1 if recipe.is_grounded else 2),
            REFERENCE_FLUENCY: lambda: {"text": float(recipe.score.fluency.references if recipe.score else 0)},
            RELEVANCE: lambda: _times(self._curated(), 1 + self._negatives()),
        }
        return dict(counts[name]())

    def _topics(self) -> ByKind:
        topics = float(count_records(self._source.artifact(TOPICS)))
        return {kind: topics for kind, weight in self.recipe.mix.items() if weight}

    def _prompts(self, prompts: int | None, per_passage: int = 1) -> ByKind:
        """Divide prompts among the kinds by the mix; there are at most so many about each passage."""
        if self.recipe.is_grounded:
            passages = count_records(self._source.artifact(_about(self.recipe, self._source))) * per_passage
            prompts = passages if prompts is None else min(prompts, passages)
        assert prompts is not None  # by the recipe's check
        mix = {kind: weight for kind, weight in sorted(self.recipe.mix.items()) if weight}
        if self.recipe.is_grounded:
            return {kind: prompts * weight / sum(mix.values()) for kind, weight in mix.items()}
        cycle = weighted_round_robin(mix)
        whole, rest = divmod(prompts, len(cycle))
        first = Counter(cycle[:rest])
        return {kind: float(whole * weight + first[kind]) for kind, weight in mix.items()}

    def _curated(self) -> Mapping[str, float]:
        """Return the curated examples: at most those that are written."""
        known = self.records.get(CURATED_EXAMPLES) or self.records.get(REVISED_EXAMPLES)
        return known or self.records[EXAMPLES]

    def _negatives(self) -> int:
        curate = self.recipe.curate
        wanted = curate.mine_negatives.count * len(curate.miners)
        written = [kinds.load_kind(kind).negative for kind, weight in self.recipe.mix.items() if weight]
        return max(wanted, int(any(written)))


def render_prompts(stage: Stage[Any, Any], runs: list[Run], counter: TokenCounter) -> Prompts | None:
    """Count the prompts of a stage of which one of the runs has the inputs; None where none has."""
    if stage.name in (REVISED_EXAMPLES, REWRITTEN_EXAMPLES):
        return None  # they follow the shards of another stage
    for run in runs:
        try:
            plan = stage.plan(run)
        except UserError:
            continue
        assert plan.input is not None
        inputs = Inputs(run.artifact(plan.input), plan)
        step = max(1, plan.shards * plan.shard_rows // RENDERED)
        shards = range(0, plan.shards, step)
        rows = [row for shard in shards for row in inputs.of_shard(shard)][:RENDERED]
        return _count(stage, rows, plan.rows, counter)
    return None


def _count(stage: Stage[Any, Any], rows: list[PlannedRow[Any]], planned: int, counter: TokenCounter) -> Prompts:
    tokens: dict[str, list[int]] = defaultdict(list)
    seen: Counter[str] = Counter()
    for row in rows:
        kind, request = stage.kind_of(row), stage.request(row)
        seen[kind] += 1
        if request is not None:
            tokens[kind].append(counter.prompt(request.messages))
    means = {kind: fmean(of_kind) for kind, of_kind in tokens.items()}
    by_kind = {kind: planned * count / len(rows) for kind, count in seen.items()}
    return Prompts(means, by_kind, planned == len(rows))


def _about(recipe: Recipe, source: Run) -> str:
    name = asked_about(recipe)
    return name if source.artifact(name).manifest() is not None else PASSAGES


def _times(rows: Mapping[str, float], factor: float) -> ByKind:
    return {kind: number * factor for kind, number in rows.items()}
