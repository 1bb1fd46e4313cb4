"""A pool that grows and shrinks with its nodes: how long a new node waits for work, and what a leaving one costs.

    python -m benchmarks.cluster.elastic

Two nodes with one simulated H100 each (see fleet.py), and a pool of two to four, in real time. This program is the
autoscaler: it lets a node join when Ray demands one, so a cloud's own minutes are not in the figure. Then a node
leaves as one does that Kubernetes sends SIGTERM (Ray drains it for 30 s of ours), and no other one comes.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from benchmarks import process, report
from benchmarks.cluster.fleet import ROWS_A_SECOND, SHARD_ROWS, begun, engine, overrides
from benchmarks.cluster.nodes import Nodes
from speed_ray.storage.run import EXAMPLES, Run
from speed_ray.storage.shards import REPLIES, Artifact
from speed_ray.storage.verify import verify

LEAST, MOST = 2, 4
HELD = 4 * SHARD_ROWS  # rows of the shards that one engine has begun: see on_ray/pool.py
Found = TypeVar("Found")


class Fleet:
    """A run on its way, and what can be seen of it from outside."""

    def __init__(self, running: process.Running, run: Path, asked: Path) -> None:
        self.running = running
        self.artifact = Run(str(run)).artifact(EXAMPLES)
        self.asked = asked

    def wait(self, look: Callable[[], Found | None]) -> Found:
        """Look until there is something. Raises RuntimeError when the run is over before."""
        while not (found := look()):
            if self.running.process.poll() is not None:
                self.running.ended()
                raise RuntimeError("the rows ran out before all was seen: ask for more --minutes")
            time.sleep(0.1)
        return found

    def engines(self) -> set[Path]:
        """One file of rows that it was asked for each engine that started."""
        return set(self.asked.iterdir())


def first_commit(artifact: Artifact, asked: Path) -> float | None:
    """When the first shard was committed of the rows that one engine was asked."""
    rows = set(asked.read_text().split())
    commits = artifact.commits()
    theirs = (commit for commit in commits if _one_row(artifact, commit.files[REPLIES].path) in rows)
    return min((commit.finished for commit in theirs), default=None)


def _one_row(artifact: Artifact, path: str) -> str:
    return str(artifact.read(path)["row_id"][0])


def grow(fleet: Fleet, nodes: Nodes) -> dict[str, Any]:
    """Let a node join when one is demanded, and follow it to its first commit."""
    fleet.wait(lambda: nodes.demanded() > 0)
    demanded = time.time()
    known = fleet.engines()
    nodes.add()
    joined = time.time()
    (new,) = fleet.wait(lambda: fleet.engines() - known)
    started = time.time()
    fleet.wait(lambda: new.stat().st_size)
    asked = time.time()
    committed = fleet.wait(lambda: first_commit(fleet.artifact, new))
    return {
        "": "scale-up",
        "nodes after it": len(nodes.alive),
        "s from demand to node": joined - demanded,
        "to its engine": started - demanded,
        "to its first row": asked - demanded,
        "to its first commit": committed - demanded,
    }


def shrink(nodes: Nodes) -> dict[str, Any]:
    """Let the newest node leave."""
    began = time.time()
    node = nodes.alive[-1]
    nodes.leave(node)
    return {"": "scale-down", "nodes after it": len(nodes.alive), "s until it was gone": time.time() - began}


def main() -> None:
    parser = report.options(__doc__)
    parser.add_argument("--minutes", type=float, default=3.0, help="of ours, with all engines at work")
    parser.add_argument("--faster", type=float, default=1.0)
    options = parser.parse_args()
    rows = int(ROWS_A_SECOND * options.faster * MOST * options.minutes * 60)
    pool = {"min_size": LEAST, "max_size": MOST, "num_cpus": 0, "num_gpus": 1}
    with tempfile.TemporaryDirectory(prefix="elastic-") as name:
        folder = Path(name)
        asked = folder / "asked"
        asked.mkdir()
        changes = overrides(engine(1, 1 / options.faster, request_log=asked), rows, pool)
        run = begun(folder, changes)
        with Nodes(LEAST, 1) as nodes:
            fleet = Fleet(process.Running("synthesize", run, changes, nodes.environment), run, asked)
            fleet.wait(lambda: len(fleet.engines()) == LEAST)
            seen = []
            while len(nodes.alive) < MOST:
                seen.append(grow(fleet, nodes))
                report.say(f"elastic: {seen[-1]}")
            seen.append(shrink(nodes))
            report.say(f"elastic: {seen[-1]}")
            fleet.running.ended()
        times = Counter(row for file in asked.iterdir() for row in file.read_text().split())
        retried = sum(commit.counts.retries for commit in fleet.artifact.commits())
        (promise,) = (verdict for verdict in verify(Run(str(run))) if verdict.artifact == EXAMPLES)
    again = times.total() - len(times) - retried
    seen[-1] |= {"rows asked again": again, "rows the lost engine held at most": HELD, "verify": str(promise)}
    figure = max(each["to its first commit"] for each in seen if "to its first commit" in each)
    report.emit(
        report.Result(
            "elastic",
            figure,
            "of what leaves no shard lost, and no more rows asked again than were in flight",
            "s from demand to the first commit on the new node",
            promise.holds and again <= HELD,
            seen,
        ),
        options.json,
    )


if __name__ == "__main__":
    main()
