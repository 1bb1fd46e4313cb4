"""Say what was planned for each stage of a run, what of that is spent, and what is left."""

from dataclasses import dataclass
from typing import Any

from speed_ray.executor.usage import usage_of_all
from speed_ray.planning.kept_plan import kept_plan
from speed_ray.recipes.engine_settings import OpenAIEngine, Price
from speed_ray.recipes.schema import Recipe
from speed_ray.storage.run import Run
from speed_ray.storage.shards import Counts
from speed_ray.storage.spending import Usage

IN_ALL = "in all"
COUNTED = ("calls", "prompt tokens", "output tokens")


@dataclass(frozen=True)
class Account:
    """Holds what was planned of something that is counted, what is spent of it, and what is left to spend."""

    planned: float = 0
    spent: float = 0
    left: float = 0

    def __add__(self, other: "Account") -> "Account":
        """Add up three numbers: what one stage spent above its plan takes nothing from what another has left."""
        return Account(self.planned + other.planned, self.spent + other.spent, self.left + other.left)


@dataclass(frozen=True)
class StageSpending:
    """Holds the accounts of one stage, or of all together; that of dollars is None where calls have no price."""

    stage: str
    counts: dict[str, Account]  # by what is counted
    dollars: Account | None
    thoughts: int  # of the output tokens that are spent


def read_spending(run: Run, recipe: Recipe) -> list[StageSpending]:
    """List each stage of the run's kept plan, and last all together; nothing where no plan is kept.

    Spent is what counts over all restarts, samples among it.
    """
    kept = kept_plan(run)
    if kept is None:
        return []
    spent = usage_of_all(run)
    stages = [_spending(run, recipe, stage, spent.get(stage["stage"], Usage())) for stage in kept["stages"]]
    priced = [stage.dollars for stage in stages if stage.dollars]
    counts = {name: sum((stage.counts[name] for stage in stages), Account()) for name in COUNTED}
    dollars = sum(priced, Account()) if priced else None
    return [*stages, StageSpending(IN_ALL, counts, dollars, sum(stage.thoughts for stage in stages))]


def spending_lines(run: Run, recipe: Recipe) -> list[str]:
    """Lines that say what was planned for each stage, what of it is spent, samples among it, and what is left."""
    stages = read_spending(run, recipe)
    title = ["planned, of it spent, and left, over all restarts and samples:"] if stages else []
    return title + [f"  {stage.stage}: {' · '.join(_parts(stage))}" for stage in stages]


def _spending(run: Run, recipe: Recipe, stage: dict[str, Any], usage: Usage) -> StageSpending:
    planned = (stage["calls"], stage["prompt_tokens"], round(stage["output_tokens"]["expected"]))
    used = (usage.calls, usage.prompt_tokens, usage.output_tokens)
    counts = {name: _account(*pair) for name, pair in zip(COUNTED, zip(planned, used, strict=True), strict=True)}
    price, dollars = _price(recipe, stage["role"]), stage["dollars"]
    cost = _account(dollars["expected"], usage.dollars(price)) if price and dollars else None
    return StageSpending(stage["stage"], counts, cost, _thoughts(run, stage["stage"]))


def _account(planned: float, spent: float) -> Account:
    return Account(planned, spent, max(0, planned - spent))


def _parts(stage: StageSpending) -> list[str]:
    parts = [f"{a.planned:,} {name}, spent {a.spent:,}, left {a.left:,}" for name, a in stage.counts.items()]
    if cost := stage.dollars:
        parts.append(f"${cost.planned:,.2f}, spent ${cost.spent:,.2f}, left ${cost.left:,.2f}")
    if stage.thoughts:
        parts.append(f"{stage.thoughts:,} of the tokens were thoughts")
    return parts


def _price(recipe: Recipe, role: str) -> Price | None:
    engine: Any = getattr(recipe, role)
    return engine.price if isinstance(engine, OpenAIEngine) else None


def _thoughts(run: Run, name: str) -> int:
    artifact = run.artifact(name)
    if artifact.plan() is None:
        return 0
    return sum((commit.counts for commit in artifact.commits()), Counts()).reasoning_tokens
