"""Seconds, memory and bytes of the report of a large run: it is to stay below 2 MB whatever the run holds.

    python -m benchmarks.run_report --rows 1000000

The rows are real docstrings under new ids, each with a prompt and a raw reply; one in twenty is a reject, and of the
curated ones one in ten a duplicate.
"""

import itertools
import json
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks import embedding, process, report
from speed_ray.records import CURATED, EXAMPLE, REJECT, REPLY, TASK, Row, content_id
from speed_ray.report.page import MAX_BYTES, write_report
from speed_ray.stages.driver_stage import RowResult, publish_rows, reject
from speed_ray.storage.attempt import Attempt
from speed_ray.storage.run import CURATED_EXAMPLES, EXAMPLES, TASKS, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import RECORDS, REJECTS, REPLIES, Counts

SHARD, PER_TASK, REJECTED, REPEATED = 2_000, 100, 20, 10
GOAL = 10.0  # seconds, of a million rows


def write_run(run: Run, rows: int) -> None:
    """Write tasks, examples with replies and rejects, and curated examples."""
    texts = embedding.examples(2_000)
    tasks = (_task(number, texts[number % len(texts)]["topic"]) for number in range(rows // PER_TASK))
    publish_rows(run.artifact(TASKS), Plan(TASKS, rows // PER_TASK, SHARD), TASK, tasks)
    plan = Plan(EXAMPLES, rows, SHARD, input=TASKS, variants=("",))
    run.artifact(EXAMPLES).ensure_plan(plan)
    for shard in range(plan.shards):
        _write_shard(run, plan, shard, [_example(number, texts) for number in plan.rows_of(shard)])
    assert run.artifact(EXAMPLES).publish(plan)
    accepted = rows - rows // REJECTED
    curated = (_curated(place, row) for place, row in enumerate(run.artifact(EXAMPLES).records()))
    publish_rows(
        run.artifact(CURATED_EXAMPLES), Plan(CURATED_EXAMPLES, accepted, SHARD, input=EXAMPLES), CURATED, curated
    )


def _task(number: int, topic: str) -> RowResult:
    row_id = content_id("task", str(number))
    row = {"id": row_id, "row_id": row_id, "parent_id": "", "kind": "retrieval", "topic": topic, "model": "m"}
    return RowResult(row_id, {**row, "task": f"Find documentation about {topic}"}, None)


def _example(number: int, texts: list[Row]) -> Row:
    row_id, task = content_id("row", str(number)), content_id("task", str(number // PER_TASK))
    return {**texts[number % len(texts)], "id": row_id, "row_id": row_id, "parent_id": task}


def _write_shard(run: Run, plan: Plan, shard: int, rows: list[Row]) -> None:
    attempt = Attempt(run.artifact(EXAMPLES), plan, shard, 0)
    bad, good = rows[::REJECTED], [row for place, row in enumerate(rows) if place % REJECTED]
    rejects = [reject(row["row_id"], "", EXAMPLES, "not_json", "", row["query"], "retrieval").reject for row in bad]
    attempt.write(REPLIES, [_reply(row) for row in rows], REPLY)
    attempt.write(RECORDS, good, EXAMPLE)
    attempt.write(REJECTS, [row for row in rejects if row], REJECT)
    kinds, reasons = dict(Counter(row["kind"] for row in good)), {"not_json": len(bad)}
    counts = Counts(len(good), len(bad), len(good), len(rows), 0, 100 * len(rows), 50 * len(rows), 0, kinds, reasons)
    attempt.commit((row["row_id"] for row in rows), counts)


def _reply(row: Row) -> Row:
    text = json.dumps({name: row[name] for name in ("query", "positive", "negatives")})
    prompt = f"Write a query and a passage about {row['topic']}.\n" + "A line that all prompts have.\n" * 20
    filled = {"trial": 0, "sample": 0, "finish_reason": "stop", "prompt_tokens": 100, "output_tokens": 50}
    rest = {"seconds": 1.0, "seed": 7, "model": "m", "adapter": None, "logprobs": []}
    return {"row_id": row["row_id"], "messages": [{"role": "user", "content": prompt}], "text": text, **filled, **rest}


def _curated(place: int, row: Row) -> RowResult:
    if place % REPEATED == 1:
        first = content_id("row", str(1 + place // 1_000 * 1_000))
        return reject(
            row["id"], row["parent_id"], CURATED_EXAMPLES, "near_duplicate", f"repeats {first}", row["query"]
        )
    return RowResult(row["id"], {**row, "split": "train"}, None)


def measure(folder: str, proven: bool) -> dict[str, Any]:
    """Write the report in this process."""
    began, cpu, file = time.perf_counter(), time.process_time(), Path(folder).with_suffix(".html")
    write_report(Run(folder), file, proven)
    return {
        "seconds": time.perf_counter() - began,
        "CPU seconds": time.process_time() - cpu,
        "peak RSS MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "bytes": file.stat().st_size,
    }


def main() -> None:
    parser = report.options(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--do", nargs=2, metavar=("RUN", "PROVEN"), help="one report, in this process")
    options = parser.parse_args()
    if options.do:
        print(json.dumps(measure(options.do[0], options.do[1] == "with")))
        return
    details = []
    with tempfile.TemporaryDirectory(prefix="report-") as folder:
        for rows, proof in itertools.product((options.rows // 10, options.rows), ("without", "with")):
            uri = f"{folder}/{rows}"
            if proof == "without":
                report.say(f"run_report: writing a run of {rows:,} rows")
                write_run(Run(uri), rows)
            answer = process.module("benchmarks.run_report", "--do", uri, proof).splitlines()[-1]
            details.append({"rows": rows, "proof by verify": proof, **json.loads(answer)})
    figure = details[2]["seconds"]
    small = all(each["bytes"] <= MAX_BYTES for each in details)
    goal = f"<= {GOAL:g}, and every page at most {MAX_BYTES:,} bytes"
    result = report.Result("run_report", figure, goal, "s of a report", figure <= GOAL and small, details)
    report.emit(result, options.json)


if __name__ == "__main__":
    sys.exit(main())
