"""Steps a second of our DPO under Ray Train, with one worker, against bare TRL: same pairs, batches and settings.

    python -m benchmarks.dpo --steps 100 --rounds 3

One after the other, round by round, on one thread each. The clock is the trainer's own and runs from step 5 to the
last: starting Ray, loading the model and computing the reference are not in it. Equal last losses show equal work.
"""

import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import miniature, process, report, training
from speed_ray import recipes
from speed_ray.on_ray import train
from speed_ray.storage.run import Run
from speed_ray.training import plan
from speed_ray.training.train_model import train_model


def overrides(steps: int, drafts: int) -> list[str]:
    """One worker, no ZeRO, nothing held out, no checkpoint but the last: what a step costs and no more."""
    return [
        *miniature.WITH_ADAPTERS,
        f"draft.examples={drafts}",
        f"senior.max_steps={steps}",
        "senior.num_train_epochs=1000",
        "senior.eval_fraction=0",
        "senior.save_steps=1000000",
        "senior.zero_stage=0",
        "senior.workers={num_workers: 1}",
    ]


def ours(run: Run, changes: list[str]) -> dict[str, Any]:
    """As `align_senior` trains."""
    training.forget(run, plan.SENIOR)
    train.train_on_ray(plan.plan_senior(run, recipes.load_recipe("miniature", changes)), train_model)
    return {
        "contender": "speed_ray under Ray Train",
        "steps/s": training.steps_per_second(run, plan.SENIOR),
        "last loss": training.last_loss(run, plan.SENIOR),
    }


def rival(run: Run, changes: list[str], reference: str) -> dict[str, Any]:
    """Bare TRL in a process of its own. `reference` is "precomputed" or "recomputed"."""
    asked = (run.uri, json.dumps(changes), reference)
    said = process.module("benchmarks.rival_trl", *asked, environment=training.ONE_THREAD)
    answer: dict[str, Any] = json.loads(said.splitlines()[-1])
    return answer


def main() -> None:
    parser = report.options(__doc__)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--drafts", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    changes, details = overrides(options.steps, options.drafts), []
    with tempfile.TemporaryDirectory(prefix="dpo-") as folder:
        run = miniature.with_pairs(Path(folder) / "run", changes)
        for turn in range(options.rounds):
            report.say(f"dpo: round {turn + 1} of {options.rounds}")
            details += [ours(run, changes), rival(run, changes, "precomputed")]
    speed = [row["steps/s"] for row in details]
    figure = statistics.median(a / b for a, b in zip(speed[::2], speed[1::2], strict=True))
    report.emit_against(">= 0.97", "dpo", figure, "steps/s, ours / bare TRL", details, options.json)


if __name__ == "__main__":
    main()
