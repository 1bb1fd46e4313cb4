"""Plan and run a recipe's jobs from Python, as `speed-ray plan` and `speed-ray run` do from a shell."""

from typing import TYPE_CHECKING

from speed_ray import recipes
from speed_ray.errors import Interrupted
from speed_ray.notebook.opened_run import Run
from speed_ray.recipes.needed_jobs import needed_jobs
from speed_ray.recipes.schema import Recipe

if TYPE_CHECKING:
    from speed_ray.planning.run_plan import RunPlan


def plan(recipe: Recipe | str, folder: str | None = None) -> "RunPlan":
    """Foretell what a recipe takes, stage by stage; no model is asked.

    With a run's folder, begun or not, what it has counts, and the plan is kept in it for its status and its report.

    >>> [(stage.stage, stage.calls) for stage in plan("runs/first/recipe.yaml", "runs/first").stages]
    [('proposed_tasks', 4), ('examples', 460)]
    """
    from speed_ray.planning.kept_plan import keep_plan
    from speed_ray.planning.run_plan import plan_run

    opened = Run(folder) if folder else None
    found = plan_run(_loaded(recipe), opened)
    if opened:
        keep_plan(opened, found.to_json())
    return found


def run(recipe: Recipe | str, folder: str, until: str | None = None) -> Run:
    """Run every job that a recipe needs, in order, skipping what is finished; return the run.

    `recipe` may be the name of one that comes with the package, or a file; `until` names the last job. What is wrong
    with the recipe raises UserError; an interrupt raises Interrupted, and the same call goes on from there.

    >>> run("runs/first/recipe.yaml", "runs/first", until="brainstorm").table("topics").num_rows
    4
    """
    from speed_ray import pipeline  # imports Ray
    from speed_ray.on_ray.session import shared_session

    loaded = _loaded(recipe)
    opened = Run(folder)
    last = needed_jobs(loaded)[-1] if until is None else until.replace("-", "_")
    try:
        with shared_session():
            for job in pipeline.up_to(last, loaded):
                job(opened, loaded)
    except KeyboardInterrupt:
        raise Interrupted(f"stopped. Everything committed is kept in {folder}: the same call goes on.") from None
    return opened


def _loaded(recipe: Recipe | str) -> Recipe:
    return recipes.load_recipe(recipe) if isinstance(recipe, str) else recipe
