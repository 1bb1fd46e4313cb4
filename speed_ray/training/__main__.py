"""Train one model without Ray, on as many processes as torchrun starts.

    torchrun --nproc-per-node 2 -m -- speed_ray.training junior --recipe miniature --run runs/demo

The two dashes keep torchrun from taking --run for one of its own options. One process needs no torchrun: python -m.
Models in their order: junior, senior; revisor_sft, revisor; embedder. Their training data must be in the run already.
"""

import sys
from typing import Annotated, Any

import typer

from speed_ray import recipes
from speed_ray.errors import Interrupted, UserError, nearest
from speed_ray.recipes.schema import Recipe
from speed_ray.storage.run import Run
from speed_ray.storage.trained_models import EMBEDDER
from speed_ray.training import distributed, plan
from speed_ray.training.plan import TrainingPlan
from speed_ray.training.train_model import train_model

app = typer.Typer(add_completion=False)


@app.command()
def main(
    model: Annotated[str, typer.Argument(help="junior, senior, revisor_sft, revisor or embedder")],
    recipe: Annotated[str, typer.Option(help="Name or path of the recipe.")],
    run: Annotated[str, typer.Option(help="Folder or URI of the run.")],
    changes: Annotated[list[str], typer.Option("--set", help="Override a key of the recipe: key=value.")] = [],  # noqa: B006
) -> None:
    """Train one model of a run."""
    try:
        loaded = recipes.load_recipe(recipe, changes)
        opened = Run(run)
        training = _plan(model, opened, loaded)
        opened.freeze(loaded)
        train_model(training, _print)
        distributed.destroy_process_group()
    except (UserError, Interrupted) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(error.exit_code) from None


def _plan(model: str, run: Run, recipe: Recipe) -> TrainingPlan:
    planners = {plan.JUNIOR: plan.plan_junior, plan.SENIOR: plan.plan_senior, EMBEDDER: plan.plan_embedder}
    if model in planners:
        return planners[model](run, recipe)
    revisors = {training.name: training for training in plan.plan_revisor(run, recipe)}
    if model not in revisors:
        valid = [plan.JUNIOR, plan.SENIOR, *revisors, EMBEDDER]
        raise UserError(f"{model}: this recipe trains no such model{nearest(model, valid)}")
    return revisors[model]


def _print(metrics: dict[str, Any]) -> None:
    if distributed.rank() == 0:
        shown = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in metrics.items()}
        print("  ".join(f"{name} {value}" for name, value in shown.items()), flush=True)


if __name__ == "__main__":
    app()
