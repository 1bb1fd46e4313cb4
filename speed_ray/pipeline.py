"""The front page: each job as a paragraph that reads like the paper (SPEED, sections 3.1 to 3.3)."""

from speed_ray.on_ray import pool
from speed_ray.recipe import Recipe
from speed_ray.run import EXAMPLES, PROPOSED_TASKS, Run
from speed_ray.stages import brainstorm as brainstorming
from speed_ray.stages import select, topics
from speed_ray.stages import synthesize as synthesis


def brainstorm(run: Run, recipe: Recipe) -> None:
    """Topics are truncated; a teacher proposes tasks for each topic and kind; the few that differ are kept."""
    listed = topics.read(recipe.topics.source, recipe.topics.limit)
    run.freeze(recipe)
    topics.collect(run, listed)
    proposals = brainstorming.plan(run, recipe)
    pool.execute(run, run.artifact(PROPOSED_TASKS), proposals, brainstorming.stage, recipe)
    select.select(run, recipe)


def synthesize(run: Run, recipe: Recipe) -> None:
    """A small generator writes one example for every planned prompt: kinds by the mix, slots by the row's own seed."""
    examples = synthesis.plan(run, recipe)
    run.freeze(recipe)
    pool.execute(run, run.artifact(EXAMPLES), examples, synthesis.stage, recipe)
