"""Random kills for half an hour: workers, raylets, drivers, a store that fails. After each round every row is there.

    python -m benchmarks.cluster.soak --minutes 30 --seed 7        (as `make soak` does)
    python -m benchmarks.cluster.soak --round 13 --seed 7          one round again

A round is a small job of its own (tests/conftest.py) on three nodes that all rounds share, its folder on local disk or
in an S3 bucket. Faults are injected at shares of its commits; which, and when, is drawn from the seed and the round's
number. A driver that ends with code 3, as it may when the store fails, is started again, as one that was killed is.
Then the job is run to its end and held against the promise, by the same oracle that the fault tests use.
"""

import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.cluster.bucket import NAME, Bucket, Trouble
from benchmarks.cluster.nodes import Nodes, engines
from speed_ray.storage.run import EXAMPLES
from speed_ray.storage.verify import verify
from tests.conftest import Driver, Job, assert_the_promise, small_job, start_driver

NODES = 3
CYCLES = 40  # of 23 rows, the kinds' mix: 920 rows in 92 shards
FORESEEN = (0, 3, -9)  # done, interrupted (by the store), killed
PATIENCE = 300.0  # seconds without a commit, after which a round has failed
RATES = {"prefill": 1e9, "decode": 1e9, "max_tokens_per_stream": 350.0}  # tokens a second: 1 s an answer
ENGINE = {"engine": "simulated", "max_concurrency": 16, **RATES}
MALFORMED = 0.3  # of the replies, so that some rows are rejected
STORE_FAULTS = (
    Trouble(refused=0.2),
    Trouble(lost=0.2),
    Trouble(seconds=0.5),
    Trouble(refused=0.1, lost=0.1, seconds=0.1),
)


class Round:
    """One job and the faults that are injected into it."""

    def __init__(self, number: int, seed: int, folder: Path, nodes: Nodes, bucket: Bucket) -> None:
        self.rng = random.Random(f"{seed} {number}")
        self.folder = folder
        self.nodes = nodes
        self.bucket = bucket
        self.uri = self.rng.choice([str(folder / "run"), f"s3://{NAME}/seed-{seed}-round-{number}"])
        kinds = ["worker", "node", "driver", "second driver"] + ["store"] * self.uri.startswith("s3")
        self.faults = [self.rng.choice(kinds) for _ in range(self.rng.randint(3, 5))]
        self.moments = sorted(self.rng.uniform(0.02, 0.95) for _ in self.faults)
        self.injected: list[str] = []
        self.drivers: list[Driver] = []
        self.codes: list[int] = []

    def play(self) -> dict[str, Any]:
        """Drive the job through its faults, and see what is left of it."""
        began = time.monotonic()
        pool = {"min_size": 2, "max_size": NODES, "num_cpus": 0, "num_gpus": 1}
        job = small_job(
            self.folder,
            uri=self.uri,
            generator={**ENGINE, "faults": {"malformed": MALFORMED}},
            synthesize__examples=23 * CYCLES,
            synthesize__pool=pool,
        ).begin()
        try:
            self._drive_through_faults(job)
            self.bucket.trouble = Trouble()
            assert_the_promise(job)
        finally:
            for driver in self.drivers:
                for process in driver.left():
                    process.kill()
        (verdict,) = (each for each in verify(job.run) if each.artifact == EXAMPLES)
        return {
            "store": self.uri.split(":")[0] if "://" in self.uri else "local",
            "faults": ", ".join(self.injected),
            "drivers": len(self.drivers),
            "exit codes": ", ".join(map(str, self.codes)),
            "planned": verdict.planned,
            "accepted": verdict.accepted,
            "rejected": verdict.rejected,
            "duplicates": verdict.duplicates,
            "missing": verdict.missing,
            "s": time.monotonic() - began,
        }

    def _drive_through_faults(self, job: Job) -> None:
        shards = 23 * CYCLES // 10
        faults = list(zip(self.moments, self.faults, strict=True))
        self._drive(job)
        for commits in self._commits(job):
            while faults and commits >= faults[0][0] * shards and self.drivers[-1].process.poll() is None:
                self._inject(faults.pop(0)[1], job)
            if all(driver.process.poll() is not None for driver in self.drivers):
                self.codes = [driver.process.returncode for driver in self.drivers]
                if unforeseen := [each.said() for each in self.drivers if each.process.returncode not in FORESEEN]:
                    raise AssertionError(f"drivers ended with {self.codes}: {unforeseen[0]}")
                if 0 in self.codes:
                    return
                self._drive(job)

    def _commits(self, job: Job) -> Iterator[int]:
        """Count commits a few times a second. Raises AssertionError once there was none for too long."""
        most, since = -1, time.monotonic()
        while True:
            commits = len(job.run.artifact(EXAMPLES).names("commits"))
            if commits > most:
                most, since = commits, time.monotonic()
            said = self.drivers[-1].said()
            assert time.monotonic() - since < PATIENCE, f"no commit for {PATIENCE:.0f} s at {most}: {said}"
            yield commits
            time.sleep(0.2)

    def _drive(self, job: Job) -> None:
        self.drivers.append(start_driver(self.folder, job, **self.nodes.environment))

    def _inject(self, fault: str, job: Job) -> None:
        kinds: dict[str, Callable[[], None]] = {
            "worker": self._kill_a_worker,
            "node": self._kill_a_node,
            "driver": lambda: self._kill_the_driver(job),
            "second driver": lambda: self._drive(job),
            "store": self._trouble_the_store,
        }
        kinds[fault]()
        self.injected.append(fault)

    def _kill_a_worker(self) -> None:
        if alive := sorted(engines(), key=lambda process: process.pid):
            self.rng.choice(alive).kill()

    def _kill_a_node(self) -> None:
        self.nodes.kill_one(self.rng)
        self.nodes.add()

    def _kill_the_driver(self, job: Job) -> None:
        self.drivers[-1].kill()
        self._drive(job)

    def _trouble_the_store(self) -> None:
        self.bucket.trouble = self.rng.choice(STORE_FAULTS)


def main() -> None:
    parser = report.options(__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--round", type=int, help="only this one")
    options = parser.parse_args()
    until = time.monotonic() + options.minutes * 60
    details: list[dict[str, Any]] = []
    with Bucket(options.seed) as bucket, Nodes(NODES, 1) as nodes:
        number = options.round or 1
        while not details or (options.round is None and time.monotonic() < until):
            with tempfile.TemporaryDirectory(prefix="soak-") as folder:
                bucket.trouble = Trouble()
                game = Round(number, options.seed, Path(folder), nodes, bucket)
                try:
                    details.append({"round": number, **game.play()})
                except AssertionError as error:
                    sys.exit(f"soak: round {number} of seed {options.seed} failed after {game.injected}: {error}")
            report.say(f"soak: {details[-1]}")
            number += 1
    doubled = sum(row["duplicates"] for row in details)
    whole = all(row["planned"] == row["accepted"] + row["rejected"] and not row["missing"] for row in details)
    report.emit(
        report.Result(
            "soak",
            len(details),
            ">= 20, planned = accepted + rejected and no duplicate in each",
            "rounds of random kills",
            len(details) >= 20 and whole and not doubled,
            details,
        ),
        options.json,
    )


if __name__ == "__main__":
    main()
