"""A small job on simulated engines, which tests run, kill and prove, and the proof itself."""

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

from speed_ray import engines, pipeline, recipes
from speed_ray.executor.shard_worker import Worker
from speed_ray.executor.stage import Stage
from speed_ray.recipes.schema import Recipe
from speed_ray.stages import select_tasks, topics
from speed_ray.stages.brainstorm import Brainstorm
from speed_ray.stages.synthesize import Synthesize
from speed_ray.storage.planned_rows import Inputs
from speed_ray.storage.run import EXAMPLES, PROPOSED_TASKS, TOPICS, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import Artifact
from speed_ray.storage.verify import verify

PATHS = ["Arts/Music", "Science/Physics", "Health/Food", "Sports/Tennis"]
MIX = {"classification": 7, "sts": 7, "retrieval": 7, "matching_short": 1, "matching_long": 1}
FAST = {"engine": "simulated", "prefill": 1e9, "decode": 1e9, "max_tokens_per_stream": 1e9}
SLOW = {
    **FAST,
    "max_tokens_per_stream": 1400.0,
    "max_concurrency": 16,
}  # a quarter of a second an answer: 7 s for 460 rows
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs, and all they start, ignore it
pytest_plugins = ["tests.helpers.alignment"]
STATUS = pytest.StashKey[int]()
MARK = "SPEED_RAY_TEST_DRIVER"  # an environment variable that a driver and all that it starts have in common


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """End before Arrow's threads are torn down, which aborts now and then: users' readers use them (parquet.py)."""
    if STATUS in config.stash and not hasattr(config, "workerinput"):  # not after --help; xdist's workers report first
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash[STATUS])


@dataclass
class Job:
    """One run folder, and the recipe that every command on it is given."""

    uri: str
    settings: dict[str, Any]

    @property
    def overrides(self) -> list[str]:
        """The recipe's keys as `--set` takes them."""
        return [f"{key}={json.dumps(value)}" for key, value in self.settings.items()]

    @property
    def run(self) -> Run:
        """The run, opened anew."""
        return Run(self.uri)

    @property
    def recipe(self) -> Recipe:
        """The recipe with its overrides."""
        return recipes.load_recipe("miniature", self.overrides)

    @property
    def examples(self) -> Path:
        """The artifact's folder on local disk."""
        return Path(self.uri) / EXAMPLES

    def arguments(self, command: str) -> list[str]:
        """What follows `speed-ray` on a command line."""
        return [command, "--recipe", "miniature", "--run", self.uri, *(f"--set={o}" for o in self.overrides)]

    def begin(self) -> "Job":
        """Brainstorm without Ray: a worker of this process answers."""
        run, recipe = self.run, self.recipe
        run.freeze(recipe)
        topics.collect_topics(run, topics.topics_of(recipe))
        self.make(Brainstorm(recipe))
        select_tasks.select_tasks(run, recipe)
        return self

    def make(self, stage: Stage) -> None:
        """Finish a stage without Ray."""
        plan, artifact = stage.plan(self.run), self.run.artifact(stage.name)
        work(self.run, artifact, plan, stage)
        assert artifact.publish(plan)

    def half_done(self, shards: int) -> "Job":
        """Leave what a driver that was stopped after so many commits leaves."""
        run, recipe = self.run, self.recipe
        work(run, run.artifact(EXAMPLES), Synthesize(recipe).plan(run), Synthesize(recipe), shards)
        return self

    def synthesize(self) -> None:
        """Drive the job in this process, in the Ray session that it has."""
        pipeline.synthesize(self.run, self.recipe)

    def commits(self) -> int:
        """How many shards of examples are committed."""
        return len(list((self.examples / "commits").glob("[0-9]*.json")))

    def attempts(self) -> int:
        """How many attempts wrote replies of examples, those that did not count among them."""
        return len(list((self.examples / "attempts").rglob("*-replies.parquet")))


def work(run: Run, artifact: Artifact, plan: Plan, stage: Stage, shards: int | None = None) -> None:
    """Commit the first pending shards of a plan with one engine in this process."""
    artifact.ensure_plan(plan)
    assert plan.input
    engine = engines.build_engine([stage.engine], None, stage.role)
    worker = Worker(stage, artifact, plan, Inputs(run.artifact(plan.input), plan), engine, None)

    async def answer() -> None:
        await engine.start()
        for shard, generation in artifact.pending(plan)[:shards]:
            await worker.work(shard, generation)

    asyncio.run(answer())


def small_job(folder: Path, name: str = "run", uri: str | None = None, slow: bool = False, **settings: Any) -> Job:
    """A job of 460 rows in 46 shards in a folder; keywords change the recipe, `__` for a dot."""
    source = folder / "topics.txt"
    source.write_text("\n".join(PATHS))
    changed = {key.replace("__", "."): value for key, value in settings.items()}
    defaults = {"topics.source": str(source), "teacher": FAST, "mix": MIX, "generator": SLOW if slow else FAST}
    # No model is trained here: the recipe's generator writes as it is, and nobody revises.
    sizes = {"synthesize.generator": "base", "synthesize.revise": False, "prompts": None}
    sizes |= {"synthesize.examples": 460, "synthesize.shard_rows": 10}
    return Job(uri or str(folder / name), {**defaults, **sizes, **changed})


@pytest.fixture
def make_job(tmp_path: Path) -> Callable[..., Job]:
    """Make small jobs in the test's folder."""
    return partial(small_job, tmp_path)


@dataclass
class Driver:
    """`speed-ray` in a process of its own, with a private Ray unless its environment names a cluster."""

    process: "subprocess.Popen[bytes]"
    output: Path
    mark: str
    environment: dict[str, str] = field(repr=False)

    def wait_until(self, reached: Callable[[], bool]) -> None:
        """Wait for something that the running driver brings about."""
        while not reached():
            assert self.process.poll() is None, f"the driver ended too early:\n{self.said()}"
            time.sleep(0.01)

    def kill(self) -> None:
        """End the driver, and nothing else, the hard way."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def ended(self) -> int:
        """Wait for its end. Returns the exit code."""
        return self.process.wait()

    def said(self) -> str:
        """All that it printed, to either stream."""
        return self.output.read_text()

    def left(self) -> list[psutil.Process]:
        """The processes that it started, or that those started, and that still run."""
        return [process for process in psutil.process_iter() if self._started(process)]

    def _started(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False


def start_driver(
    folder: Path, job: Job, command: str = "synthesize", program: list[str] | None = None, **more: str
) -> Driver:
    """Start `speed-ray`, or another program with the same arguments; its words go to a file in the folder."""
    mark = uuid.uuid4().hex
    environment = {**os.environ, MARK: mark, **more}
    output = folder / f"{command}-{mark}.log"
    with output.open("wb") as stream:
        process = subprocess.Popen(
            [*(program or [str(Path(sys.executable).with_name("speed-ray"))]), *job.arguments(command)],
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Driver(process, output, mark, environment)


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Callable[..., Driver]]:
    """Start drivers; whatever the test leaves of them is ended by its process id."""
    drivers: list[Driver] = []

    def start(job: Job, command: str = "synthesize", program: list[str] | None = None, **more: str) -> Driver:
        drivers.append(start_driver(tmp_path, job, command, program, **more))
        return drivers[-1]

    yield start
    for driver in drivers:
        for process in driver.left():
            process.kill()
        driver.process.wait()


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """A folder for a cluster's sockets, logs and token: not pytest's, as a socket's path holds 107 characters."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture
def prove() -> Callable[[Job], None]:
    """The oracle of every fault."""
    return assert_the_promise


def assert_the_promise(job: Job) -> None:
    """The promise holds, and the ids are those that the topics alone call for."""
    verdicts = verify(job.run)
    assert [verdict.artifact for verdict in verdicts] == ["topics", "proposed_tasks", "tasks", "examples"]
    for verdict in verdicts:
        assert verdict.holds, f"{verdict.artifact}: {verdict} {verdict.problems}"
    topic_ids = [_hash(path) for path in PATHS]
    assert _published(job, TOPICS) == Counter(topic_ids)
    assert _published(job, PROPOSED_TASKS) == Counter(_hash(topic, kind) for topic in topic_ids for kind in MIX)
    assert _published(job, EXAMPLES) == Counter(_example_ids(job))


def _example_ids(job: Job) -> Iterator[str]:
    """Every kind has its share of the rows and goes around its tasks, a new variant each time."""
    planned = job.recipe.synthesize.examples
    cycles, rest = divmod(planned, sum(MIX.values()))
    assert not rest, "a job of whole cycles: its ids need no order"
    tasks = [row for table in _tables(job, "tasks", ("records",)) for row in table.to_pylist()]
    for kind, weight in MIX.items():
        of_kind = [task["id"] for task in tasks if task["kind"] == kind]
        yield from (_hash(of_kind[i % len(of_kind)], str(i // len(of_kind))) for i in range(cycles * weight))


def _published(job: Job, artifact: str) -> Counter[str]:
    """Planned rows by id: once as accepted, however many records one has, and once as rejected."""
    accepted, rejected = (list(_tables(job, artifact, (role,))) for role in ("records", "rejects"))
    key = "id" if artifact == TOPICS else "row_id"
    counted: Counter[str] = Counter()
    for table in accepted:
        ids = table[key].to_pylist()
        counted.update(set(ids) if artifact == PROPOSED_TASKS else ids)
    for table in rejected:
        counted.update(table["row_id"].to_pylist())
    return counted


def _tables(job: Job, artifact: str, roles: tuple[str, ...]) -> Iterator[Any]:
    store = job.run.store
    for shard in json.loads(store.get(f"{artifact}/_MANIFEST.json"))["shards"]:
        for role in roles:
            if entry := shard["files"].get(role):
                data = store.get(f"{artifact}/{entry['path']}")
                assert hashlib.sha256(data).hexdigest() == entry["sha256"]
                yield pq.read_table(BytesIO(data))


def _hash(*parts: str) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part.encode()).to_bytes(8, "little") + part.encode())
    return digest.hexdigest()
