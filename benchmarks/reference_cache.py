"""A step of DPO with the reference's log-probabilities stored, against TRL that computes them anew at each step.

    python -m benchmarks.reference_cache --steps 60 --rounds 3

The first round computes and stores them; in each further one the same model is trained again from its beginning, and
must compute none.
"""

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import miniature, report, training
from benchmarks.dpo import overrides, rival
from speed_ray import recipes
from speed_ray.storage.run import Run
from speed_ray.training import plan

ROWS = "rows through the reference"


def stored(run: Run, changes: list[str]) -> dict[str, Any]:
    """Ours, by the stored reference."""
    began = time.time()
    training.train(run, plan.SENIOR, changes)
    return {
        "contender": "speed_ray, reference stored",
        "s/step": 1 / training.steps_per_second(run, plan.SENIOR),
        ROWS: computed_since(run, began),
        "wall s": time.time() - began,
    }


def recomputed(run: Run, changes: list[str]) -> dict[str, Any]:
    """TRL's, by the copy of the junior that it keeps beside the senior."""
    began = time.time()
    speed = rival(run, changes, "recomputed")
    senior = recipes.load_recipe("miniature", changes).senior
    return {
        "contender": speed["contender"],
        "s/step": 1 / speed["steps/s"],
        ROWS: (senior.max_steps or 0) * senior.global_batch_size,
        "wall s": time.time() - began,
    }


def computed_since(run: Run, moment: float) -> int:
    """Count the rows whose reference was written since then."""
    files = [path for path in Path(run.uri, "reference").glob("*/*.json") if path.name != "_MANIFEST.json"]
    return sum(len(json.loads(path.read_text())) for path in files if path.stat().st_mtime >= moment)


def main() -> None:
    parser = report.options(__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--drafts", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error("--rounds: what a second run pays takes a second round")
    changes, details = overrides(options.steps, options.drafts), []
    with tempfile.TemporaryDirectory(prefix="reference_cache-") as folder:
        run = miniature.with_pairs(Path(folder) / "run", changes)
        for turn in range(options.rounds):
            report.say(f"reference_cache: round {turn + 1} of {options.rounds}")
            details += [stored(run, changes), recomputed(run, changes)]
    ours, theirs = details[::2], details[1::2]
    figure = statistics.median(a["s/step"] / b["s/step"] for a, b in zip(ours, theirs, strict=True))
    paid_once = ours[0][ROWS] > 0 and all(row[ROWS] == 0 for row in ours[1:])
    report.emit(
        report.Result(
            "reference_cache",
            figure,
            "< 1, and no row through the reference in a second run",
            "s/step, stored / recomputed",
            figure < 1 and paid_once,
            details,
        ),
        options.json,
    )


if __name__ == "__main__":
    main()
