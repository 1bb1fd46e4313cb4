"""CPU seconds a step by each loss of the embedder, against InfoNCE's: same MiniLM, rows, batches and scores.

    python -m benchmarks.distillation --steps 8 --rounds 3

Each row is a real docstring's title and description with seven other descriptions; the guide is MiniLM itself.
"""

import random
import statistics
import sys
import tempfile
import time
from typing import Any

from benchmarks import embedding, report
from speed_ray.records import SCORED, Row
from speed_ray.storage.run import SCORED_EXAMPLES

BATCH, NEGATIVES, WARM = 16, 7, 1  # rows, and texts at once; negatives of a row; steps that are not timed
WAYS: dict[str, dict[str, Any]] = {
    "infonce": {},
    "kl": {"loss": "kl"},
    "margin_mse": {"loss": "margin_mse"},
    "kl, rows weighted": {"loss": "kl", "weight_by_score": True},
    "infonce, guide": {"guide": {}},
}


def scored(rows: list[Row]) -> list[Row]:
    """Give each row the descriptions of others as negatives, and a judge's logits."""
    rng = random.Random(0)
    return [
        {
            **row,
            "negatives": [each["positive"] for each in rng.sample(rows, NEGATIVES + 1) if each is not row][:NEGATIVES],
            **{"gates": [], "relabelled_from": "", "dropped": [], "further_positives": []},
            "scores": [
                {
                    "judge": "a",
                    "positive": rng.gauss(4, 3),
                    "further_positives": [],
                    "negatives": [rng.gauss(-4, 3) for _ in range(NEGATIVES)],
                }
            ],
        }
        for row in rows
    ]


def seconds(rows: list[Row], steps: int, settings: dict[str, Any]) -> float:
    """Train so many steps; return the mean CPU time of those that are not the first."""
    with tempfile.TemporaryDirectory() as folder:
        run = embedding.Run(folder)
        embedding.write_curated(run, iter(rows), len(rows), name=SCORED_EXAMPLES, schema=SCORED)
        sizes = {"global_batch_size": BATCH, "micro_batch_size": BATCH, "max_steps": steps}
        return embedding.seconds_a_step(run, embedding.recipe(score={}, **sizes, **settings), WARM, time.process_time)


def main() -> None:
    parser = report.options(__doc__)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rows = scored(embedding.examples(options.steps * BATCH))
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for turn in range(options.rounds):
        report.say(f"distillation: round {turn + 1} of {options.rounds}")
        for way, settings in WAYS.items():
            times[way].append(seconds(rows, options.steps, settings))
    ratios = {
        way: statistics.median(one / other for one, other in zip(found, times["infonce"], strict=True))
        for way, found in times.items()
    }
    details = [
        {"loss": way, "CPU s a step": statistics.median(found), "/ infonce": ratios[way]}
        for way, found in times.items()
    ]
    report.emit_against("<= 1.3", "distillation", ratios["kl"], "CPU s a step, KL / InfoNCE", details, options.json)


if __name__ == "__main__":
    sys.exit(main())
