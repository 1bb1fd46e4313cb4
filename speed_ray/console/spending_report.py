"""Say what was planned for each stage of a run, what of that is spent, and what is left."""

from typing import Any

from speed_ray.executor.usage import usage_of_all
from speed_ray.planning.kept_plan import kept_plan
from speed_ray.recipes.engine_settings import OpenAIEngine, Price
from speed_ray.recipes.schema import Recipe
from speed_ray.storage.run import Run
from speed_ray.storage.shards import Counts
from speed_ray.storage.spending import Usage


def spending_lines(run: Run, recipe: Recipe) -> list[str]:
    """Lines that say what was planned for each stage, what of it is spent, samples among it, and what is left."""
    kept = kept_plan(run)
    if kept is None:
        return []
    spent = usage_of_all(run)
    lines = ["planned, of it spent, and left, over all restarts and samples:"]
    for stage in kept["stages"]:
        usage, price = spent.get(stage["stage"], Usage()), _price(recipe, stage["role"])
        planned = {"calls": stage["calls"], "output tokens": round(stage["output_tokens"]["expected"])}
        used = {"calls": usage.calls, "output tokens": usage.output_tokens}
        parts = [_part(name, planned[name], used[name]) for name in planned]
        if price and stage["dollars"]:
            dollars, cost = stage["dollars"]["expected"], usage.dollars(price)
            parts.append(f"${dollars:,.2f}, spent ${cost:,.2f}, left ${max(0.0, dollars - cost):,.2f}")
        if thoughts := _thoughts(run, stage["stage"]):
            parts.append(f"{thoughts:,} of the tokens were thoughts")
        lines.append(f"  {stage['stage']}: " + " · ".join(parts))
    return lines


def _part(name: str, planned: int, spent: int) -> str:
    return f"{planned:,} {name}, spent {spent:,}, left {max(0, planned - spent):,}"


def _price(recipe: Recipe, role: str) -> Price | None:
    engine: Any = getattr(recipe, role)
    return engine.price if isinstance(engine, OpenAIEngine) else None


def _thoughts(run: Run, name: str) -> int:
    artifact = run.artifact(name)
    if artifact.plan() is None:
        return 0
    return sum((commit.counts for commit in artifact.commits()), Counts()).reasoning_tokens
