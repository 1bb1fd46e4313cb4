"""Examples a second from shards to token ids, against what training MiniLM takes of them; and memory over a million.

    python -m benchmarks.reader --rows 1000000

The shards hold real docstrings, over and over; each contender in a process of its own.
"""

import itertools
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from benchmarks import embedding, process, report
from speed_ray.records import Row, content_id
from speed_ray.storage.run import Run
from speed_ray.training import plan
from speed_ray.training.contrastive import encoder, loop

STEPS, WARM = 8, 2  # of training
GOAL, FLAT = 20.0, 1.1


def rows(count: int) -> Iterator[Row]:
    """Yield real examples with one negative, again and again under new ids."""
    for number, row in zip(range(count), itertools.cycle(embedding.examples(2_000)), strict=False):
        yield {**row, "id": content_id("row", str(number)), "row_id": content_id("row", str(number))}


def read(folder: str) -> dict[str, Any]:
    """Read one epoch, as a training's background thread does, and throw it away."""
    training = plan.plan_embedder(Run(folder), embedding.recipe(num_train_epochs=1))
    model = encoder.load_encoder(embedding.MINILM, None, 128)
    reader, windows, steps = loop.make_reader(training, model)
    began, peak = time.perf_counter(), 0
    taken = 0
    for batch in itertools.islice(reader.local_batches(windows, 0), steps):
        taken += len(batch.rows)
        peak = max(peak, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return {"rows": taken, "examples/s": taken / (time.perf_counter() - began), "peak RSS MB": peak / 1024}


def trained(folder: str) -> dict[str, Any]:
    """Train some steps."""
    recipe = embedding.recipe(max_steps=STEPS)
    seconds = embedding.seconds_a_step(Run(folder), recipe, WARM)
    assert recipe.embedder
    return {
        "rows": STEPS * recipe.embedder.global_batch_size,
        "examples/s": recipe.embedder.global_batch_size / seconds,
    }


def main() -> None:
    parser = report.options(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--do", nargs=2, metavar=("WHAT", "RUN"), help="one contender, in this process")
    options = parser.parse_args()
    if options.do:
        print(json.dumps({"read": read, "train": trained}[options.do[0]](options.do[1])))
        return
    details = []
    with tempfile.TemporaryDirectory(prefix="reader-") as folder:
        for count in (options.rows // 10, options.rows):
            report.say(f"reader: writing {count:,} rows")
            embedding.write_curated(Run(f"{folder}/{count}"), rows(count), count)
            report.say(f"reader: reading {count:,} rows")
            details.append({"contender": "reader", **done("read", f"{folder}/{count}")})
        details.append({"contender": "training MiniLM", **done("train", f"{folder}/{options.rows // 10}")})
    figure = details[1]["examples/s"] / details[2]["examples/s"]
    flat = details[1]["peak RSS MB"] / details[0]["peak RSS MB"]
    goal = f">= {GOAL:g}, and memory of {options.rows:,} rows <= {FLAT} of a tenth's (here {flat:.2f})"
    unit = "examples/s, reader / training"
    report.emit(report.Result("reader", figure, goal, unit, figure >= GOAL and flat <= FLAT, details), options.json)


def done(what: str, run: str) -> dict[str, Any]:
    """Do one thing in a process of its own."""
    answer: dict[str, Any] = json.loads(process.module("benchmarks.reader", "--do", what, run).splitlines()[-1])
    return answer


if __name__ == "__main__":
    sys.exit(main())
