"""Run a recipe's jobs from Python, as `speed-ray run` does from a shell."""

from speed_ray import recipes
from speed_ray.errors import Interrupted
from speed_ray.notebook.opened_run import Run
from speed_ray.recipes.needed_jobs import needed_jobs
from speed_ray.recipes.schema import Recipe


def run(recipe: Recipe | str, folder: str, until: str | None = None) -> Run:
    """Run every job that a recipe needs, in order, skipping what is finished; return the run.

    `recipe` may be the name of one that comes with the package, or a file; `until` names the last job. What is wrong
    with the recipe raises UserError; an interrupt raises Interrupted, and the same call goes on from there.

    >>> run("runs/first/recipe.yaml", "runs/first", until="brainstorm").table("topics").num_rows
    4
    """
    from speed_ray import pipeline  # imports Ray
    from speed_ray.on_ray.session import shared_session

    loaded = recipes.load_recipe(recipe) if isinstance(recipe, str) else recipe
    opened = Run(folder)
    last = needed_jobs(loaded)[-1] if until is None else until.replace("-", "_")
    try:
        with shared_session():
            for job in pipeline.up_to(last, loaded):
                job(opened, loaded)
    except KeyboardInterrupt:
        raise Interrupted(f"stopped. Everything committed is kept in {folder}: the same call goes on.") from None
    return opened
