"""What a kill costs: how many rows are done twice, and how long until the first new row.

    python -m benchmarks.resume --rows 200000

A drive of simulated rows is SIGKILLed, with all its processes, at half; the same command ends the job. How long a
resumed job takes to its first new row at 10k and at 1M committed rows is in orchestration.py, which has such runs.
"""

import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks import process, report
from benchmarks.orchestration import FAST

SHARD_ROWS = 1000
# A second of latency: shards are in flight when the kill comes.
IN_FLIGHT = 4000
SLOW = (
    "{engine: simulated, prefill: 1.0e+12, decode: 1.0e+12, max_tokens_per_stream: 120, output_tokens: 120, "
    f"max_concurrency: {IN_FLIGHT}}}"
)


def overrides(rows: int, engine: str) -> list[str]:
    """One run: engines and sizes."""
    sizes = [f"synthesize.examples={rows}", f"synthesize.shard_rows={SHARD_ROWS}"]
    return [f"teacher={FAST}", f"generator={engine}", *sizes]


def repeated(folder: Path, rows: int) -> dict[str, float]:
    """Kill at half, go on, and count the rows that the engines were asked about more than once."""
    run, asked = folder / "killed", folder / "asked"
    asked.mkdir()
    recipe = overrides(rows, SLOW.replace("max_concurrency", f"request_log: {asked}, max_concurrency"))
    process.job("brainstorm", run, recipe)
    half = lambda: process.committed_rows(run, "examples", SHARD_ROWS) >= rows // 2  # noqa: E731
    process.job("synthesize", run, recipe, kill_when=half)
    before = {commit.shard for commit in process.commits(run, "examples")}
    killed_at = time.time()
    process.job("synthesize", run, recipe)
    commits = process.commits(run, "examples")
    times = Counter(line for path in asked.iterdir() for line in path.read_text().split())
    return {
        "rows": rows,
        "committed at the kill": len(before) * SHARD_ROWS,
        "rows asked twice": sum(count > 1 for count in times.values()),
        "rows in flight at most": 2 * IN_FLIGHT,
        "s to first new commit": min(c.finished for c in commits if c.shard not in before) - killed_at,
    }


def main() -> None:
    parser = report.options(__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="resume-") as folder:
        report.say(f"resume: kill at half of {options.rows:,} rows")
        kill = repeated(Path(folder), options.rows)
    figure = kill["rows asked twice"] / kill["rows in flight at most"]
    unit = "rows asked twice / rows of the shards in flight"
    report.emit_against("<= 1", "resume", figure, unit, [kill], options.json)


if __name__ == "__main__":
    main()
