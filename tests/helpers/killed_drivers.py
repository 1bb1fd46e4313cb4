"""`speed-ray run --until curate` by two drivers at once, each killed where a file says so; begun again until they end.

    python -m tests.helpers.killed_drivers MOMENTS run --recipe ... --run FOLDER ...

MOMENTS lists artifacts in the order in which they are made. Whoever is about to commit a shard of the first of them,
other than its shard 0, gets SIGKILL, and the name is taken off. Before all that one driver goes through undisturbed,
into FOLDER-unbroken. Each start is forked from this process, which has imported what takes long, and has no Ray: an
engine within the driver answers, and is killed with it. What Ray does then is tested where topics are asked about.
"""

import os
import signal
import sys
from pathlib import Path

import sentence_transformers  # noqa: F401  # here, as each driver would import it again

from speed_ray import cli
from speed_ray.on_ray import pool
from speed_ray.on_ray.pool import Step
from speed_ray.stages import embed_passages, neighbours
from speed_ray.storage.run import Run
from speed_ray.storage.shards import Artifact
from tests.conftest import work
from tests.helpers.interrupted_run import Moments, first

SHARD_ROWS = 8  # of what a recipe sets no size for


def execute(run: Run, *steps: Step) -> None:
    """Ask an engine of this process, in place of a pool's."""
    for step in steps:
        artifact = run.artifact(step.plan.stage)
        work(run, artifact, step.plan, step.stage)
        assert artifact.publish(step.plan)


def die_when_told(moments: Moments) -> None:
    """Die before a commit, where it is the artifact's turn."""

    def about_to_create(artifact: Artifact, path: str, data: bytes) -> None:
        if path.startswith("commits/") and not path.startswith("commits/00000000."):
            moments.reached(artifact.name)

    first(Artifact, "create", about_to_create)


def start() -> int:
    """Begin a driver; return its process id."""
    if not (process := os.fork()):
        cli.main()
        sys.exit()
    return process


def main() -> None:
    """Begin each driver again and again until it is through."""
    moments = Moments(Path(sys.argv.pop(1)), signal.SIGKILL)
    sys.argv += ["--until", "curate"]
    pool.execute, embed_passages.SHARD_ROWS, neighbours.SHARD_ROWS = execute, SHARD_ROWS, SHARD_ROWS
    folder = sys.argv.index("--run") + 1
    killed = sys.argv[folder]
    sys.argv[folder] = f"{killed}-unbroken"
    assert os.waitpid(start(), 0)[1] == 0
    sys.argv[folder] = killed
    die_when_told(moments)
    drivers = {start(), start()}
    while drivers:
        process, status = os.wait()
        drivers.remove(process)
        if (code := os.waitstatus_to_exitcode(status)) == -signal.SIGKILL:
            drivers.add(start())
        else:
            assert code == 0, f"a driver ended with code {code} before it came to {moments.left()}"
    assert not moments.left(), f"nobody came to {moments.left()}"


if __name__ == "__main__":
    main()
