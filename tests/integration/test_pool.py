"""The executor: the same rows for any pool, nothing done twice, a pool that grows, engines that never drain."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest
import ray

from speed_ray.errors import Interrupted
from speed_ray.on_ray import pool
from speed_ray.on_ray.pool import Step
from speed_ray.recipes.engine_settings import SimulatedEngine
from speed_ray.stages.revise import Revise
from speed_ray.stages.synthesize import Synthesize
from speed_ray.storage.shards import RECORDS, REPLIES
from speed_ray.storage.verify import verify

LOG = ".shards-of-actors"  # a file in the run's folder where each shard's begin and end are noted, by process id
BROKEN = ".what-is-broken"  # another: "engine" or "actor", which then raises what nobody foresaw
CREW = ".actors-to-wait-for"  # another: how many processes must have begun a shard before one may end


@pytest.fixture(scope="module", autouse=True)
def ray_session() -> Iterator[None]:
    ray.init(
        address="local",
        num_cpus=8,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        runtime_env={"worker_process_setup_hook": note_shards()},
    )
    yield
    ray.shutdown()


def note_shards():
    # A nested function travels to the workers by value: they cannot import this file.
    def hook() -> None:
        import asyncio

        from speed_ray.executor.shard_worker import Worker

        work, make = Worker.work, Worker.__init__

        def is_broken(worker: Worker, what: str) -> bool:
            file = Path(worker.artifact.store.uri, BROKEN)
            return file.exists() and file.read_text() == what

        def made(worker: Worker, *arguments) -> None:
            make(worker, *arguments)
            if is_broken(worker, "actor"):
                raise ZeroDivisionError("an actor that cannot be made")

        async def broken(request):
            raise ZeroDivisionError("tokens of no second")

        async def noted(worker: Worker, shard: int, generation: int):
            log, crew = (Path(worker.artifact.store.uri, name) for name in (LOG, CREW))
            with log.open("a") as lines:
                lines.write(f'[{os.getpid()}, 1, "{worker.artifact.name}"]\n')
            while crew.exists() and len({json.loads(line)[0] for line in log.open()}) < int(crew.read_text()):
                await asyncio.sleep(0.1)
            if is_broken(worker, "engine"):
                worker.engine.generate = broken
            try:
                return await work(worker, shard, generation)
            finally:
                with log.open("a") as lines:
                    lines.write(f'[{os.getpid()}, -1, "{worker.artifact.name}"]\n')

        Worker.work, Worker.__init__ = noted, made

    return hook


def table(job, role: str) -> pa.Table:
    """All published rows of a role, in plan order."""
    artifact = job.run.artifact("examples")
    files = [shard["files"][role]["path"] for shard in artifact.manifest()["shards"]]
    return pa.concat_tables([artifact.read(path) for path in files])


def at_once(job) -> Counter[int]:
    """The most shards that each actor's process worked on at the same time."""
    now, most = Counter(), Counter()
    for pid, change, _ in map(json.loads, Path(job.uri, LOG).read_text().splitlines()):
        now[pid] += change
        most[pid] = max(most[pid], now[pid])
    return most


def wait_for(job, actors: int) -> None:
    """Let no shard end before so many actors have one, however late they come up; the watchdog ends it else."""
    Path(job.uri, CREW).write_text(str(actors))


@pytest.mark.slow
def test_the_pool_never_decides_a_row(make_job):
    small = make_job("one", synthesize__pool={"max_size": 1}, generator__max_concurrency=4).begin()
    three = {"min_size": 3, "max_size": 3, "watchdog_minutes": 5}
    large = make_job("three", slow=True, synthesize__pool=three, generator__max_concurrency=8).begin()
    wait_for(large, actors=3)
    for job in (small, large):
        job.synthesize()

    assert len(at_once(small)) == 1
    assert len(at_once(large)) == 3
    assert table(small, RECORDS) == table(large, RECORDS)
    columns = ["row_id", "trial", "messages", "seed", "text"]
    assert table(small, REPLIES).select(columns) == table(large, REPLIES).select(columns)


@pytest.mark.slow
def test_a_finished_job_asks_nothing(make_job, monkeypatch):
    job = make_job().begin()
    job.synthesize()
    attempts = job.attempts()

    monkeypatch.setattr(pool, "session", lambda: pytest.fail("Ray is not needed to see that a job is finished"))
    job.synthesize()

    assert job.attempts() == attempts == 46


@pytest.mark.slow
def test_a_job_that_another_driver_ends_while_ray_starts_ends_well(make_job, monkeypatch, prove):
    job, session = make_job().begin(), pool.session

    @contextmanager
    def late() -> Iterator[None]:
        job.half_done(shards=46)
        with session():
            yield

    monkeypatch.setattr(pool, "session", late)
    job.synthesize()

    assert job.attempts() == 46
    prove(job)


@pytest.mark.slow
def test_the_pool_grows_and_each_engine_holds_several_shards(make_job, prove):
    growing = {"min_size": 1, "max_size": 3, "watchdog_minutes": 5}
    job = make_job(slow=True, synthesize__pool=growing, synthesize__examples=1150).begin()
    wait_for(job, actors=2)

    job.synthesize()

    most = at_once(job)
    assert 2 <= len(most) <= 3, "the pool stayed at its minimum, or outgrew its maximum"
    assert max(most.values()) == 5, "two times 16 requests in flight over 10 rows a shard, and one at its tail"
    prove(job)


def revising(job, engine: SimulatedEngine) -> tuple[Step, Step]:
    """Examples by the job's generator, and their revisions by an engine that may be another."""
    recipe = job.recipe
    examples = Synthesize(recipe).plan(job.run)
    return (
        Step(examples, Synthesize(recipe)),
        Step(Revise(recipe, engine).plan(job.run, examples), Revise(recipe, engine)),
    )


def workers_of(job) -> dict[str, set[int]]:
    """Which processes worked on each artifact."""
    found: dict[str, set[int]] = {}
    for line in Path(job.uri, LOG).read_text().splitlines():
        pid, _, artifact = json.loads(line)
        found.setdefault(artifact, set()).add(pid)
    return found


@pytest.mark.slow
def test_steps_with_one_engine_share_a_pool_and_all_rows_pass_both(make_job):
    job = make_job().begin()

    pool.execute(job.run, *revising(job, job.recipe.generator))

    workers = workers_of(job)
    assert workers["examples"] == workers["revised_examples"] and len(workers["examples"]) == 1
    assert all(verdict.holds for verdict in verify(job.run))
    revised = job.run.artifact("revised_examples").manifest()["counts"]
    assert revised["accepted"] + revised["rejected"] == 460


@pytest.mark.slow
def test_steps_with_two_engines_have_two_pools_busy_at_once(make_job):
    job = make_job(slow=True).begin()

    pool.execute(job.run, *revising(job, job.recipe.generator.model_copy(update={"model": "another"})))

    workers = workers_of(job)
    assert workers["examples"].isdisjoint(workers["revised_examples"])
    written, revised = (list(job.run.artifact(name).commits()) for name in ("examples", "revised_examples"))
    assert min(commit.finished for commit in revised) < max(commit.started for commit in written)


@pytest.mark.slow
def test_a_driver_that_ended_between_two_steps_goes_on_with_the_second(make_job):
    job = make_job().begin().half_done(shards=30)
    attempts = job.attempts()

    pool.execute(job.run, *revising(job, job.recipe.generator))

    assert job.attempts() == attempts + 16
    assert all(verdict.holds for verdict in verify(job.run))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("engine", r"^examples, shard \d+: ZeroDivisionError: tokens of no second\nThis was not foreseen"),
        ("actor", r"^examples: a worker ended: ZeroDivisionError: an actor that cannot be made\n"),
    ],
)
def test_what_nobody_foresaw_ends_a_job_with_its_reason_and_costs_no_row(make_job, prove, what, said):
    job = make_job().begin().half_done(shards=30)
    Path(job.uri, BROKEN).write_text(what)
    with pytest.raises(Interrupted, match=said) as caught:
        job.synthesize()
    assert "Traceback" not in str(caught.value)

    Path(job.uri, BROKEN).unlink()
    job.synthesize()
    prove(job)
