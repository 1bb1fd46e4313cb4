"""Ask language models about curated examples, and read what they said: how likely texts are, and whether they answer.

What is read comes in the order of the examples, one for each. A number is None where no model was asked or can tell.
"""

from collections.abc import Iterator
from itertools import groupby
from typing import Any, NamedTuple

from speed_ray.curation.fluency_gate import FluencyScale
from speed_ray.executor.stage import Stage, artifact_identity
from speed_ray.recipes.engine_settings import OpenAIEngine
from speed_ray.recipes.schema import Recipe
from speed_ray.records import Row
from speed_ray.stages.fluency import Fluency, ReferenceFluency
from speed_ray.stages.relevance import Relevance
from speed_ray.storage.run import CURATED_EXAMPLES, FLUENCY, REFERENCE_FLUENCY, RELEVANCE, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import Artifact


class Said(NamedTuple):
    """Hold what language models say of one example; its less fluent text counts."""

    fluency: float | None = None  # share of the corpus's texts that are less likely at the text's length
    logprob: float | None = None  # mean of the text's tokens, in nats
    answers: tuple[float, ...] | None = None  # log-odds of positive and negatives, in order; None where one is missing


def stages_of(recipe: Recipe) -> list[list[Stage[Any, Any]]]:
    """List the stages that a recipe's gates and judges want, those that share an engine together."""
    if recipe.score is None:
        return []
    bounds, can_tell = recipe.score.gates, "prompt" in recipe.generator.logprobs
    is_compared = can_tell and bounds.fluency is not None and recipe.corpus is not None
    fluency: list[Stage[Any, Any]] = []
    if is_compared or (can_tell and bounds.logprob is not None):
        fluency = [Fluency(recipe), *([ReferenceFluency(recipe)] if is_compared else [])]
    llm: list[Stage[Any, Any]] = [Relevance(recipe)] if recipe.score.llm else []
    return [stages for stages in (fluency, llm) if stages]


def said_identity(run: Run, recipe: Recipe) -> dict[str, Any]:
    """Return the digests of what language models said, for the plan of what is decided by it."""
    return {stage.name: artifact_identity(run.artifact(stage.name)) for group in stages_of(recipe) for stage in group}


def read_said(run: Run, recipe: Recipe) -> Iterator[Said]:
    """Yield what was said of each curated example. Raises UserError where a model was not asked yet."""
    made = said_identity(run, recipe)
    scale = FluencyScale(_logprobs(run.artifact(REFERENCE_FLUENCY)) if REFERENCE_FLUENCY in made else ())
    fluency, relevance = (_ByExample(run.artifact(name) if name in made else None) for name in (FLUENCY, RELEVANCE))
    for file in run.artifact(CURATED_EXAMPLES).record_files().values():
        table = run.artifact(CURATED_EXAMPLES).read(file.path).select(["id", "negatives"])
        for row in table.to_pylist():
            answers = {each["place"]: each["log_odds"] for each in relevance.take(row["id"])}
            whole = len(answers) == 1 + len(row["negatives"])
            texts = [each for each in fluency.take(row["id"]) if each["tokens"]]
            shares = (scale.share_below(each["tokens"], each["logprob"]) for each in texts)
            yield Said(
                min((share for share in shares if share is not None), default=None),
                min((each["logprob"] for each in texts), default=None),
                tuple(answers[place] for place in sorted(answers)) if whole else None,
            )


class _ByExample:
    """Read records in the order of the examples that they are about: some, or none, of each."""

    def __init__(self, artifact: Artifact | None) -> None:
        records: Iterator[Row] = artifact.records() if artifact else iter(())
        self._groups = groupby(records, key=lambda row: str(row["parent_id"]))
        self._next = next(self._groups, None)

    def take(self, example_id: str) -> list[Row]:
        """Return the records of the next example; asked in order, once for each."""
        if self._next is None or self._next[0] != example_id:
            return []
        found = list(self._next[1])
        self._next = next(self._groups, None)
        return found


def _logprobs(references: Artifact) -> Iterator[list[float]]:
    for file in references.record_files().values():
        yield from references.read(file.path)["logprobs"].to_pylist()


def replace_outdated(run: Run, stage: Stage[Any, Any], plan: Plan) -> None:
    """Withdraw what another model said, or of other texts. What was paid for stays: then the new plan is refused."""
    artifact = run.artifact(stage.name)
    existing = artifact.plan()
    if existing is not None and existing.digest != plan.digest and not isinstance(stage.engine, OpenAIEngine):
        artifact.replace_plan(plan, "was said by another model, or of other texts")
