"""The very requests that a run's synthesis sends, for rivals to send as well."""

from dataclasses import replace

from benchmarks.process import UNALIGNED
from speed_ray import recipes
from speed_ray.engines.base import Request
from speed_ray.recipes.schema import Recipe
from speed_ray.records import seed_of
from speed_ray.stages.synthesize import Synthesize
from speed_ray.storage.planned_rows import Inputs
from speed_ray.storage.run import Run


def planned(uri: str, overrides: list[str]) -> tuple[Recipe, list[Request]]:
    """Return the recipe and every first request of the plan, with its seed."""
    recipe = recipes.load_recipe("miniature", [*UNALIGNED, *overrides])
    run = Run(uri)
    plan = Synthesize(recipe).plan(run)
    inputs, stage = Inputs(run.artifact(str(plan.input)), plan), Synthesize(recipe)
    rows = (row for shard in range(plan.shards) for row in inputs.of_shard(shard))
    requests = [(row.row_id, stage.request(row)) for row in rows]
    return recipe, [replace(r, seed=seed_of(recipe.seed, row_id, "trial 0")) for row_id, r in requests if r]
