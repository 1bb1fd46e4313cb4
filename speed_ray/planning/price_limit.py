"""Hold a plan against what its user is willing to pay, before anything is begun."""

import sys
from typing import TYPE_CHECKING

from speed_ray.errors import UserError
from speed_ray.planning.kept_plan import keep_plan
from speed_ray.recipes.engine_settings import OpenAIEngine
from speed_ray.recipes.schema import Recipe
from speed_ray.storage.run import Run

if TYPE_CHECKING:
    from speed_ray.planning.run_plan import RunPlan


def check_most(plan: "RunPlan", most: float) -> None:
    """Raise UserError where a plan may cost more than so many dollars, or where nobody can tell."""
    if plan.dollars.high > most:
        raise UserError(
            f"--most {most:g}: this may cost ${plan.dollars.high:,.2f} (expected ${plan.dollars.expected:,.2f}).\n"
            "Ask for fewer rows, name a cheaper model, or allow more."
        )
    if untold := [stage.stage for stage in plan.stages if stage.dollars is None and stage.pace.endswith("at once")]:
        raise UserError(
            f"--most {most:g}: what {', '.join(untold)} costs cannot be told: set the price of its engine."
        )


def ask_before(recipe: Recipe, run: Run) -> None:
    """Ask on a terminal whether a run may begin that is to cost more than `budget.ask_above`; elsewhere say so alone.

    A job in a cluster has nobody to ask: it goes on, and `budget.dollars` is what holds it. Raises UserError for a no.
    """
    limits = [each.budget.ask_above for each in (recipe.teacher, recipe.generator) if isinstance(each, OpenAIEngine)]
    if not (asked_above := [limit for limit in limits if limit is not None]):
        return
    from speed_ray.planning.run_plan import DONE, plan_run, sum_up  # loads all stages, for recipes that want it alone

    plan = plan_run(recipe, run)
    keep_plan(run, plan.to_json())
    left = sum_up([stage.dollars for stage in plan.stages if stage.dollars and stage.replies != DONE])
    if left.expected <= min(asked_above):
        return
    said = (
        f"This is to cost ${left.expected:,.2f}, at most ${left.high:,.2f} (budget.ask_above: {min(asked_above):g})."
    )
    if not sys.stdin.isatty():
        print(said, file=sys.stderr)
        return
    if input(f"{said} Begin? [y/N] ").strip().lower() not in ("y", "yes"):
        raise UserError("not begun, and nothing is spent. `speed-ray plan` tells stage by stage what it takes.")
