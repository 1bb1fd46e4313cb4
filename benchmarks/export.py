"""Rows a second of each form of an export, and its memory over a million rows against a tenth of them.

    python -m benchmarks.export --rows 1000000

The rows hold real docstrings, over and over, each query with its number; each form in a process of its own. What is
written is opened: row counts by `datasets`, and the BEIR folder by our own reader at the smaller size.
"""

import itertools
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import process, report
from speed_ray.export.forms import FORMS, export_rows
from speed_ray.records import CURATED, HELD_OUT, TRAIN, Row, content_id
from speed_ray.stages.driver_stage import RowResult, publish_rows
from speed_ray.storage.run import CURATED_EXAMPLES, Run
from speed_ray.storage.shard_plan import Plan

GOAL, FLAT = 5_000.0, 1.1
HELD_OUT_EVERY, SHARD_ROWS = 50, 2_048
WITH_CORPUS = ("beir", "tevatron")  # they remember which texts they had


def rows(count: int) -> Iterator[Row]:
    """Yield real examples with one negative, again and again under new ids, every fiftieth held out."""
    from benchmarks import embedding  # imports torch, which would count as the export's memory

    for number, row in zip(range(count), itertools.cycle(embedding.examples(2_000)), strict=False):
        name = content_id("row", str(number))
        split = TRAIN if number % HELD_OUT_EVERY else HELD_OUT
        yield {**row, "id": name, "row_id": name, "query": f"{row['query']} {number}", "split": split}


def export(form: str, folder: str) -> dict[str, Any]:
    """Export a run in one form, in this process."""
    to = Path(folder).with_name(f"{Path(folder).name}-{form}")
    began = time.perf_counter()
    tables = export_rows(Run(folder), to, form)
    seconds = time.perf_counter() - began
    written = {f"{table.name}/{split}": count for table in tables for split, count in table.rows.items()}
    return {
        "seconds": seconds,
        "peak RSS MB": report.peak(),
        "written MB": sum(path.stat().st_size for path in to.rglob("*") if path.is_file()) / 1e6,
        "rows": written,
    }


def opened(form: str, folder: str) -> dict[str, int]:
    """Count the rows that the form's reader finds."""
    to = Path(folder).with_name(f"{Path(folder).name}-{form}")
    if form == "beir":
        from speed_ray.evaluation.datasets import read_beir

        return {"qrels/test": len(read_beir(to).queries)}
    from datasets import get_dataset_config_names, load_dataset

    with tempfile.TemporaryDirectory(prefix="datasets-") as cache:
        found = {name: load_dataset(str(to), name, cache_dir=cache) for name in get_dataset_config_names(str(to))}
        return {f"{name}/{split}": len(part) for name, splits in found.items() for split, part in splits.items()}


def main() -> None:
    parser = report.options(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--do", nargs=3, metavar=("WHAT", "FORM", "RUN"), help="one form, in this process")
    options = parser.parse_args()
    if options.do:
        what, form, run = options.do
        print(json.dumps({"export": export, "open": opened}[what](form, run)))
        return
    details, sizes = [], (options.rows // 10, options.rows)
    with tempfile.TemporaryDirectory(prefix="export-") as folder:
        for count in sizes:
            report.say(f"export: writing {count:,} rows")
            write_run(f"{folder}/{count}", count)
        for form in FORMS:
            found = [done("export", form, f"{folder}/{count}") for count in sizes]
            counted = done("open", form, f"{folder}/{sizes[0]}")
            details.append(
                {
                    "form": form,
                    "rows/s": sizes[1] / found[1]["seconds"],
                    "peak RSS MB": found[1]["peak RSS MB"],
                    "over a tenth's": found[1]["peak RSS MB"] / found[0]["peak RSS MB"],
                    "written MB": found[1]["written MB"],
                    "opened with the same counts": all(
                        found[0]["rows"][name] == rows for name, rows in counted.items()
                    ),
                }
            )
    slowest = min(row["rows/s"] for row in details)
    flat = max(row["over a tenth's"] for row in details if row["form"] not in WITH_CORPUS)
    met = slowest >= GOAL and flat <= FLAT and all(row["opened with the same counts"] for row in details)
    goal = f">= {GOAL:g}, memory of {sizes[1]:,} rows <= {FLAT} of a tenth's but with a corpus (here {flat:.2f})"
    report.emit(report.Result("export", slowest, goal, "rows/s of the slowest form", met, details), options.json)


def write_run(folder: str, count: int) -> None:
    """Write a run whose curated examples are `count` rows."""
    from benchmarks import embedding

    run = Run(folder)
    run.freeze(embedding.recipe())
    passed = (RowResult(row["id"], row, None) for row in rows(count))
    publish_rows(run.artifact(CURATED_EXAMPLES), Plan(CURATED_EXAMPLES, count, SHARD_ROWS), CURATED, passed)


def done(what: str, form: str, run: str) -> dict[str, Any]:
    """Do one thing in a process of its own."""
    answer: dict[str, Any] = json.loads(process.module("benchmarks.export", "--do", what, form, run).splitlines()[-1])
    return answer


if __name__ == "__main__":
    sys.exit(main())
