"""Alignment that is stopped anywhere goes on, and makes the same bytes as if it had not been."""

import sys
from collections import Counter
from collections.abc import Iterator

import pytest
import ray

from speed_ray import pipeline
from speed_ray.recipes.engine_settings import SimulatedEngine
from speed_ray.stages.critique import Critique
from speed_ray.stages.judge import Judge
from speed_ray.stages.propose import Propose
from speed_ray.storage.run import ARTIFACTS
from speed_ray.storage.shards import RECORDS, REJECTS
from speed_ray.storage.trained_models import Model
from speed_ray.storage.verify import verify
from tests.helpers.interrupted_run import stand_in
from tests.helpers.paths import ROOT
from tests.helpers.tiny_training import ignore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2700)]

LISTS, SHARD_ROWS, IN_FLIGHT = 230, 10, 16
AT_ONCE = 5 * SHARD_ROWS  # rows that the engine's actor holds: twice what it answers at once, in whole shards, and one
ASKED = {
    "engine": "simulated",
    "prefill": 1e9,
    "decode": 1e9,
    "max_tokens_per_stream": 1400.0,
    "max_concurrency": IN_FLIGHT,
}

ONE_STAGE = """
import sys
from speed_ray import recipes
from speed_ray.on_ray import pool
from speed_ray.stages.critique import Critique
from speed_ray.stages.judge import Judge
from speed_ray.storage.run import Run
name, _, _, _, _, uri, *overrides = sys.argv[1:]
run, recipe = Run(uri), recipes.load_recipe("miniature", [each.removeprefix("--set=") for each in overrides])
stage = {"judge": Judge, "critique": Critique}[name](recipe)
pool.execute(run, pool.Step(stage.plan(run), stage))
"""

STAGES = (
    *("topics", "proposed_tasks", "tasks", "drafts", "junior", "candidates", "verdicts", "senior"),
    *("revisions", "revisor_sft", "own_revisions", "revision_pairs", "revisor", "examples"),
    *("curated_examples", "embedder"),
)
MODELS = ("junior", "senior", "revisor_sft", "revisor", "embedder")


@pytest.mark.parametrize("stage", [Judge, Critique])
def test_the_teacher_is_asked_once(make_job, drive, nothing_left, tmp_path, stage):
    asked = tmp_path / "asked"
    asked.mkdir()
    name = stage.key
    settings = {f"{name}__shard_rows": SHARD_ROWS, f"{name}__max_retries": 0, "propose__lists": LISTS}
    settings |= {"critique__candidates": 1}
    job = proposed(make_job("stopped", teacher={**ASKED, "request_log": str(asked)}, **settings))
    unbroken = proposed(make_job("unbroken", **settings))
    unbroken.make(stage(unbroken.recipe))
    for noted in asked.iterdir():
        noted.unlink()  # what brainstorming asked
    artifact = job.run.artifact(stage.name)
    program = [sys.executable, "-c", ONE_STAGE, name]

    driver = drive(job, program=program)
    driver.wait_until(lambda: len(list(artifact.commits())) >= LISTS // SHARD_ROWS // 2)
    driver.kill()
    nothing_left(driver)
    assert artifact.manifest() is None, "the driver was killed too late to prove anything"
    driver = drive(job, program=program)

    assert driver.ended() == 0, driver.said()
    times = Counter(row for noted in asked.iterdir() for row in noted.read_text().split())
    assert len(times) == LISTS and max(times.values()) <= 2
    assert times.total() - LISTS <= AT_ONCE, "more was asked twice than was in flight"
    assert all(verdict.holds for verdict in verify(job.run))
    assert contents(job, artifact.name) == contents(unbroken, artifact.name)


def proposed(job):
    """A job with candidates to judge, by a simulated junior."""
    job.begin()
    junior = SimulatedEngine(engine="simulated", model="junior", prefill=1e9, decode=1e9, max_tokens_per_stream=1e9)
    job.make(Propose(job.recipe, junior))
    return job


def contents(job, name):
    """The sha256 of the files with an artifact's records and rejects, in order."""
    shards = job.run.artifact(name).manifest()["shards"]
    return [
        shard["files"][role]["sha256"] for shard in shards for role in (RECORDS, REJECTS) if role in shard["files"]
    ]


@pytest.fixture
def cluster() -> Iterator[str]:
    """The address of a Ray for many drivers: one of its own would cost each ten seconds."""
    ray.init(address="local", num_cpus=16, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


@pytest.fixture
def unbroken(make_whole_job, cluster, monkeypatch):
    """A whole run that nothing stops, in this process: its pools on the cluster, its trainings without Ray."""
    job = make_whole_job("unbroken")
    monkeypatch.setattr(pipeline, "generator_with_trained_weights", stand_in)
    monkeypatch.setattr(pipeline, "train_on_ray", lambda training, train: train(training, ignore))
    for step in pipeline.up_to("train_embedder", job.recipe):
        step(job.run, job.recipe)
    return job


@pytest.mark.long
def test_a_run_stopped_everywhere_ends_in_the_same_bytes(make_whole_job, drive, cluster, unbroken, tmp_path):
    """See interrupted_run.py for what stands in for vLLM; trainings, pools and storage are real."""
    stopped, moments = make_whole_job("stopped"), tmp_path / "moments"
    program = [sys.executable, str(ROOT / "tests" / "helpers" / "interrupted_run.py"), str(moments)]
    moments.write_text("\n".join(f"{when} {stage}" for stage in STAGES for when in ("before", "inside")))

    driver = drive(stopped, "run", program=program, RAY_ADDRESS=cluster)
    assert driver.ended() == 0, driver.said()

    assert all(verdict.holds for verdict in verify(stopped.run))
    made = [name for name in ARTIFACTS if unbroken.run.artifact(name).manifest()]
    assert set(STAGES) - set(MODELS) <= set(made)
    for name in made:
        assert contents(stopped, name) == contents(unbroken, name), name
    for name in MODELS:
        assert Model(stopped.run, name).manifest()["digest"] == Model(unbroken.run, name).manifest()["digest"], name
