"""What our own machinery costs a row: `synthesize` with a simulated engine that answers at once, at growing sizes.

    python -m benchmarks.orchestration --rows 10000 100000 1000000

Flat means that a row of the largest run costs no more CPU, and the driver no more memory, than one of the size before.
At each size one shard is then taken away, and the same command is timed until that shard is committed again: how long
a resumed job takes to its first new row, with all the others committed.
"""

import tempfile
import time
from pathlib import Path

from benchmarks import process, report

FAST = (
    "{engine: simulated, prefill: 1.0e+12, decode: 1.0e+12, max_tokens_per_stream: 1.0e+12, output_tokens: 120, "
    "max_concurrency: 512}"
)


def measure(folder: Path, rows: int) -> dict[str, float]:
    """Synthesize `rows` rows in a fresh run; rates from the first shard's start to the last commit."""
    run = folder / f"run-{rows}"
    overrides = [f"teacher={FAST}", f"generator={FAST}", f"synthesize.examples={rows}", "synthesize.shard_rows=1000"]
    process.job("brainstorm", run, overrides)
    usage = process.job("synthesize", run, overrides)
    commits = process.commits(run, "examples")
    seconds = max(c.finished for c in commits) - min(c.started for c in commits)
    for name in ("_SUCCESS", "_MANIFEST.json", f"commits/{len(commits) // 2:08d}.0.json"):
        (run / "examples" / name).unlink()
    resumed = time.time()
    process.job("synthesize", run, overrides)
    first_new = max(commit.finished for commit in process.commits(run, "examples")) - resumed
    return {
        "rows": rows,
        "rows/s": rows / seconds,
        "CPU s per 1,000 rows": usage.cpu_seconds / rows * 1000,
        "driver RSS MB": usage.driver_rss / 1e6,
        "wall s with start-up": usage.seconds,
        "s to first new row, resumed": first_new,
    }


def main() -> None:
    parser = report.options(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="orchestration-") as folder:
        details = []
        for rows in options.rows:
            report.say(f"orchestration: {rows:,} rows")
            details.append(measure(Path(folder), rows))
    # Start-up is a fixed cost: compare the two largest sizes, where it weighs little.
    before, last = details[-2:] if len(details) > 1 else (details[0], details[0])
    ratio = last["CPU s per 1,000 rows"] / before["CPU s per 1,000 rows"]
    memory = last["driver RSS MB"] / before["driver RSS MB"]
    report.emit(
        report.Result(
            "orchestration",
            max(ratio, memory),
            "<= 1.1",
            "worse of CPU a row and driver memory, largest size / the one before",
            ratio <= 1.1 and memory <= 1.1,
            details,
        ),
        options.json,
    )


if __name__ == "__main__":
    main()
