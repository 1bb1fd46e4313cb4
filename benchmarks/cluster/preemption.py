"""Spot nodes: a tenth of a simulated fleet is lost every ten minutes, and as much joins again a little later.

    python -m benchmarks.cluster.preemption --nodes 10 --losses 2

Each node is a raylet with one simulated H100 (see fleet.py), killed with SIGKILL, unasked; `--absent` simulated
seconds later another one joins. Time runs faster than ours (`--faster`): all rates of an engine are multiplied by it,
and ten minutes divided. What Ray needs to see a node's death and to start an engine elsewhere is not made faster:
eight seconds of this machine count as forty of the fleet, about what an 8B model takes to load.

Repeated work is what engines were asked for more than once. Goodput is counted from committed rows alone: before the
first loss, and from then on until as long after the last loss as lies between two.
"""

import random
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import process, report
from benchmarks.cluster.fleet import ROWS_A_SECOND, begun, engine, overrides
from benchmarks.cluster.nodes import Nodes, notes
from speed_ray.storage.run import EXAMPLES, Run
from speed_ray.storage.shards import Commit
from speed_ray.storage.verify import verify

EVERY = 600.0  # simulated seconds between two losses


def lose(nodes: Nodes, running: process.Running, busy: Path, options: Any) -> list[tuple[float, float]]:
    """Kill and replace until there were enough losses. Returns when each node went and when another was there."""
    rng, gaps = random.Random(options.seed), []
    while len(list(busy.iterdir())) < options.nodes:
        _pause(1, running)
    _pause(EVERY / options.faster, running)
    for _ in range(options.losses):
        lost = time.time()
        for _ in range(max(1, options.nodes // 10)):
            nodes.kill_one(rng)
        _pause(options.absent / options.faster - (time.time() - lost), running)
        while len(nodes.alive) < options.nodes:
            nodes.add()
        gaps.append((lost, time.time()))
        report.say(f"preemption: a node was lost, and another is there after {gaps[-1][1] - lost:.0f} s")
        _pause(EVERY / options.faster - (time.time() - lost), running)
    return gaps


def _pause(seconds: float, running: process.Running) -> None:
    until = time.time() + seconds
    while time.time() < until:
        if running.process.poll() is not None:
            running.ended()
            raise RuntimeError("the rows ran out before the last loss: ask for more --rows")
        time.sleep(0.2)


def goodput(commits: Sequence[Commit], since: float, until: float) -> float:
    """Rows a second that were committed in a time."""
    counts = [commit.counts for commit in commits if since <= commit.finished < until]
    return sum(count.accepted + count.rejected for count in counts) / (until - since)


def figures(run: Path, asked: Path, busy: Path, gaps: list[tuple[float, float]], options: Any) -> dict[str, Any]:
    """What was repeated, and what was lost beyond the nodes themselves."""
    commits = process.commits(run, EXAMPLES)
    began = sorted(note[0][0] for _, note in notes(busy))[options.nodes - 1]  # when the last of the first engines did
    spell = EVERY / options.faster
    undisturbed = goodput(commits, gaps[0][0] - spell * 0.9, gaps[0][0])
    since, until = gaps[0][0], gaps[-1][0] + spell
    disturbed = goodput(commits, since, until)
    share = max(1, options.nodes // 10) / options.nodes
    missing = share * sum(back - gone for gone, back in gaps) / (until - since)
    times = Counter(row for file in asked.iterdir() for row in file.read_text().split())
    rows = sum(commit.counts.accepted + commit.counts.rejected for commit in commits)
    retried = sum(commit.counts.retries for commit in commits)
    again = sum(times.values()) - len(times) - retried
    (promise,) = (verdict for verdict in verify(Run(str(run))) if verdict.artifact == EXAMPLES)
    lost = 1 - disturbed / undisturbed
    return {
        "nodes": options.nodes,
        "losses": len(gaps),
        "times faster": options.faster,
        "rows": rows,
        "rows asked again": again,
        "repeated work": again / len(times),
        "a node's places times losses": 256 * len(gaps),
        "rows/s before": undisturbed / options.faster,
        "of what the engines can": undisturbed / options.faster / (ROWS_A_SECOND * options.nodes),
        "rows/s while nodes are lost": disturbed / options.faster,
        "goodput lost": lost,
        "capacity lost": missing,
        "lost beyond it": lost - missing,
        "real s a node was away": sum(back - gone for gone, back in gaps) / len(gaps),
        "engines started": len(list(busy.iterdir())),
        "real s from start to all engines": began - min(commit.started for commit in commits),
        "verify": str(promise),
        "holds": "yes" if promise.holds else f"NO: {promise.problems}",
    }


def main() -> None:
    parser = report.options(__doc__)
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--losses", type=int, default=2)
    parser.add_argument("--faster", type=float, default=5.0)
    parser.add_argument("--absent", type=float, default=120.0, help="simulated seconds until another node is there")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    # Two spells before the first loss, for engines start one after another, and half of one after the last.
    rows = int(ROWS_A_SECOND * options.nodes * EVERY * (options.losses + 2))
    pool = {"min_size": options.nodes, "max_size": options.nodes, "num_cpus": 0, "num_gpus": 1}
    with tempfile.TemporaryDirectory(prefix="preemption-") as name:
        folder = Path(name)
        asked, busy = folder / "asked", folder / "busy"
        asked.mkdir()
        busy.mkdir()
        changes = overrides(engine(1, 1 / options.faster, request_log=asked, utilization_log=busy), rows, pool)
        run = begun(folder, changes)
        with Nodes(options.nodes, 1) as nodes:
            running = process.Running("synthesize", run, changes, nodes.environment)
            gaps = lose(nodes, running, busy, options)
            running.ended()
        found = figures(run, asked, busy, gaps, options)
    met = found["repeated work"] < 0.01 and found["lost beyond it"] <= 0.05 and found["holds"] == "yes"
    report.emit(
        report.Result(
            "preemption",
            found["lost beyond it"],
            "<= 0.05, and repeated work < 0.01 of rows",
            "share of goodput that is lost beyond the lost nodes' own",
            met,
            [{"": name, "seen": value} for name, value in found.items()],
        ),
        options.json,
    )


if __name__ == "__main__":
    main()
