"""Rows a second of senior and revisor: two adapters in one vLLM pool, against a pool for each on the same two cores.

    python -m benchmarks.one_pool --rows 1150 --rounds 3

Each row is written by the senior and then goes over to the revisor. Both sides have two engines of one core: in one
pool either engine does either work, in two pools one waits for the other's shards. The clock runs from the first
shard's start, its engine loaded, to the last revision's commit: the second pool's engine is loaded only once the first
shard reaches it, and the table says how long that took. Adapters are of random weights, so replies are held to their
schema, and a row whose example was not fit is not asked again for a revision.
"""

import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import miniature, process, report
from speed_ray import recipes
from speed_ray.on_ray import pool
from speed_ray.on_ray.pool import Step
from speed_ray.recipes.schema import Recipe
from speed_ray.stages.revise import Revise
from speed_ray.stages.synthesize import Synthesize
from speed_ray.storage.run import EXAMPLES, REVISED_EXAMPLES, Run
from speed_ray.storage.trained_models import generator_with_trained_weights

ONE_CORE = "{num_cpus: 1}"
CONTENDERS = {
    "one pool of two engines": "{min_size: 2, max_size: 2, num_cpus: 1}",
    "two pools of one engine": ONE_CORE,
}


def overrides(rows: int, engines: str) -> list[str]:
    """Ray gives an engine as many threads as its actor has CPUs. Steps that share a pool have the first one's."""
    return [
        *miniature.WITH_ADAPTERS,
        "generator.structured_outputs=true",
        f"synthesize.examples={rows}",
        "synthesize.shard_rows=23",
        "synthesize.max_retries=0",
        f"synthesize.pool={engines}",
        f"revise.pool={ONE_CORE}",
    ]


def measure(ground: Run, folder: Path, contender: str, rows: int) -> dict[str, Any]:
    """Write and revise all rows in a fresh copy of the run."""
    shutil.copytree(ground.uri, folder)
    run, recipe = Run(str(folder)), recipes.load_recipe("miniature", overrides(rows, CONTENDERS[contender]))
    pool.execute(run, *steps(run, recipe, apart=contender.startswith("two pools")))
    written, revised = (process.commits(folder, name) for name in (EXAMPLES, REVISED_EXAMPLES))
    began = min(c.started for c in written)
    seconds = max(c.finished for c in revised) - began
    return {
        "contender": contender,
        "rows/s": rows / seconds,
        "s to first revision": min(c.started for c in revised) - began,
        "examples": sum(c.counts.accepted for c in written),
        "calls": sum(c.counts.calls for c in (*written, *revised)),
        "tokens/s": sum(c.counts.output_tokens for c in (*written, *revised)) / seconds,
    }


def steps(run: Run, recipe: Recipe, apart: bool) -> tuple[Step, Step]:
    """Senior, then revisor. Engines that differ in any argument do not share a pool, and this one changes nothing."""
    senior, revisor = (
        generator_with_trained_weights(run, recipe, "senior"),
        generator_with_trained_weights(run, recipe, "revisor"),
    )
    if apart:
        revisor = revisor.model_copy(update={"engine_kwargs": {**revisor.engine_kwargs, "seed": 1}})
    examples = Synthesize(recipe, senior).plan(run)
    return (
        Step(examples, Synthesize(recipe, senior)),
        Step(Revise(recipe, revisor).plan(run, examples), Revise(recipe, revisor)),
    )


def main() -> None:
    parser = report.options(__doc__)
    parser.add_argument("--rows", type=int, default=1150)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    details = []
    with tempfile.TemporaryDirectory(prefix="one_pool-") as folder:
        changes = overrides(options.rows, ONE_CORE)
        ground = miniature.with_tasks(Path(folder) / "ground", changes)
        for name in ("senior", "revisor"):
            miniature.publish_adapter(ground, name, changes)
        for turn in range(options.rounds):
            for number, contender in enumerate(CONTENDERS):
                report.say(f"one_pool: round {turn + 1} of {options.rounds}, {contender}")
                details.append(measure(ground, Path(folder) / f"{turn}-{number}", contender, options.rows))
    speed = [row["rows/s"] for row in details]
    figure = statistics.median(one / two for one, two in zip(speed[::2], speed[1::2], strict=True))
    report.emit_against(">= 1", "one_pool", figure, "rows/s, one pool / two pools", details, options.json)


if __name__ == "__main__":
    main()
