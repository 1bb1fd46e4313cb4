"""SPEED's table 2, small: how true are the examples of each model, on the same prompts, in the miniature world?

    python -m benchmarks.ablation --seeds 3 --examples 460

For each seed all models are trained anew, from brainstorming on; then each writes the same planned examples. Truth is
measured by the world itself (miniature/truth.py), whose only other reader is the scripted judge. A row that was
rejected counts as an example of truth 0: a model that is often unfit is not better for it.

A gap is taken within each seed, whose models come of one junior and write to the same prompts, and its standard error
is that of the mean over seeds: how good the junior is varies more from seed to seed than what alignment adds.
"""

import statistics
import tempfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from benchmarks import report
from jobs.compare_writers import truth_scores
from speed_ray import pipeline, recipes
from speed_ray.on_ray import pool
from speed_ray.on_ray.pool import Step
from speed_ray.recipes.engine_settings import EngineConfig
from speed_ray.recipes.schema import Recipe
from speed_ray.stages.revise import Revise
from speed_ray.stages.synthesize import Synthesize
from speed_ray.storage.run import Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.trained_models import generator_with_trained_weights

ORDER = ("junior", "senior", "senior + revisor")  # what alignment is for: each better than the one before
TEACHER, BASE = "scripted teacher", "base, held to the schema"


def measure(folder: Path, seed: int, examples: int) -> dict[str, float]:
    """Train all models with one seed; return the mean truth of what each writes, rejects counted as 0."""
    recipe = recipes.load_recipe("miniature", [f"seed={seed}", f"synthesize.examples={examples}"])
    run = Run(str(folder / f"seed-{seed}"))
    for job in pipeline.up_to("align_revisor", recipe):
        job(run, recipe)
    writers = {
        BASE: recipe.generator.model_copy(update={"structured_outputs": True}),
        TEACHER: recipe.teacher,
        "junior": generator_with_trained_weights(run, recipe, "junior"),
        "senior": generator_with_trained_weights(run, recipe, "senior"),
    }
    artifacts: dict[str, str] = {}
    for name, engine in writers.items():
        steps = _steps(run, recipe, name, engine, artifacts)
        pool.execute(run, *steps)
    return {name: sum(truth_scores(run, artifact)) / examples for name, artifact in artifacts.items()}


def _steps(run: Run, recipe: Recipe, name: str, engine: EngineConfig, artifacts: dict[str, str]) -> list[Step]:
    """One model's examples and, for a model that was trained, their revisions by the run's revisor."""
    written = _named(Synthesize(recipe, engine).plan(run), name, artifacts)
    steps = [Step(written, Synthesize(recipe, engine))]
    if name in ("junior", "senior"):
        revisor = generator_with_trained_weights(run, recipe, "revisor")
        plan = Revise(recipe, revisor).plan(run, written)
        steps.append(Step(_named(plan, f"{name} + revisor", artifacts), Revise(recipe, revisor)))
    return steps


def _named(plan: Plan, name: str, artifacts: dict[str, str]) -> Plan:
    artifacts[name] = "ablation_" + "".join(c if c.isalpha() else "_" for c in name)
    return replace(plan, stage=artifacts[name])


def main() -> None:
    parser = report.options(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--examples", type=int, default=460)
    parser.add_argument("--keep", type=Path, help="a folder for the runs; what is finished there is not done again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ablation-") as folder:
        measured = []
        for seed in range(7, 7 + options.seeds):
            report.say(f"ablation: seed {seed}")
            measured.append(measure(options.keep or Path(folder), seed, options.examples))
    found = [_gap(measured, worse, better) for worse, better in pairwise(ORDER)]
    details = [*(_row(name, [each[name] for each in measured]) for name in measured[0]), *found]
    gaps = [float(each["in standard errors"]) for each in found]
    met = len(measured) > 1 and all(gap > 2 for gap in gaps)
    report.emit(
        report.Result(
            "ablation",
            min(gaps),
            "> 2",
            "least gap of junior < senior < senior + revisor, in standard errors",
            met,
            details,
        ),
        options.json,
    )


def _row(name: str, means: list[float]) -> dict[str, float | str | int]:
    deviation = statistics.stdev(means) if len(means) > 1 else float("nan")
    return {"model": name, "truth of 1": statistics.mean(means), "deviation": deviation, "seeds": len(means)}


def _gap(measured: list[dict[str, float]], worse: str, better: str) -> dict[str, float | str | int]:
    row = _row(f"{better}, less {worse}", [each[better] - each[worse] for each in measured])
    error = float(row["deviation"]) / len(measured) ** 0.5
    return {**row, "in standard errors": float(row["truth of 1"]) / error if error else float("nan")}


if __name__ == "__main__":
    main()
