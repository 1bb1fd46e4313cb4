"""Where a run stands: read from storage alone, while it runs or after a crash."""

import time
from dataclasses import dataclass

from speed_ray.errors import UserError
from speed_ray.progress import cost
from speed_ray.recipe import OpenAIEngine, Recipe
from speed_ray.run import ARTIFACTS, Run
from speed_ray.shards import Artifact, Counts
from speed_ray.spending import ARTIFACTS_OF


@dataclass(frozen=True)
class Standing:
    """One artifact: how much of it there is, and when the last of that came."""

    artifact: str
    planned: int
    shards: int
    committed: int
    counts: Counts
    published: bool
    idle: float | None  # seconds since the last commit, by the committing machine's clock

    @property
    def state(self) -> str:
        """In a word or two."""
        if self.published:
            return "published"
        if self.idle is None:
            return "planned"
        return f"last commit {self.idle:,.0f} s ago"


def standings(run: Run) -> list[Standing]:
    """Every artifact that was begun. Raises UserError where there is none."""
    found = [_standing(run.artifact(name)) for name in ARTIFACTS]
    begun = [standing for standing in found if standing]
    if not begun:
        run.recipe()  # says so, when the folder is no run at all
        raise UserError(f"{run.uri} was begun, but nothing is planned in it yet. Run its job again.")
    return begun


def _standing(artifact: Artifact) -> Standing | None:
    plan = artifact.plan()
    if plan is None:
        return None
    commits = list(artifact.commits())
    return Standing(
        artifact=artifact.name,
        planned=plan.rows,
        shards=plan.shards,
        committed=len(commits),
        counts=sum((commit.counts for commit in commits), Counts()),
        published=artifact.manifest() is not None,
        idle=max(0.0, time.time() - max(commit.finished for commit in commits)) if commits else None,
    )


def lines(run: Run) -> list[str]:
    """One line an artifact, and below it what its records are and why rows were rejected."""
    recipe = run.recipe()
    return [line for standing in standings(run) for line in [_line(recipe, standing), *breakdown(standing)]]


def _line(recipe: Recipe, standing: Standing) -> str:
    counts = standing.counts
    parts = [
        f"{standing.artifact}: {standing.state}",
        f"{standing.committed:,} of {standing.shards:,} shards",
        f"{standing.planned:,} rows planned, {counts.accepted:,} accepted, {counts.rejected:,} rejected",
        f"{counts.records:,} records",
    ]
    if counts.calls:
        parts.append(f"{counts.calls:,} calls, {counts.prompt_tokens:,} + {counts.output_tokens:,} tokens")
    if dollars := _dollars(recipe, standing):
        parts.append(dollars)
    return " · ".join(parts)


def breakdown(standing: Standing) -> list[str]:
    """Lines that say what the records are and why rows were rejected."""
    kinds, reasons = standing.counts.kinds, standing.counts.reasons
    lines = [f"  {kind}: {count:,}" for kind, count in sorted(kinds.items())]
    lines += [f"  rejected, {reason}: {count:,}" for reason, count in sorted(reasons.items(), key=lambda r: -r[1])]
    return lines


def _dollars(recipe: Recipe, standing: Standing) -> str:
    for role, artifacts in ARTIFACTS_OF.items():
        engine = getattr(recipe, role)
        if standing.artifact in artifacts and isinstance(engine, OpenAIEngine) and engine.price:
            return f"${cost(standing.counts, engine.price.input, engine.price.output):,.2f}"
    return ""
