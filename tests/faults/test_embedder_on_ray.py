"""An embedder's training under Ray Train that loses a worker or its driver sees the batches of an unbroken one."""

import json
import random
import shutil

import pytest
from sentence_transformers import SentenceTransformer

from speed_ray import pipeline
from speed_ray.stages.synthesize import Synthesize
from speed_ray.storage.run import Run
from speed_ray.storage.trained_models import Model
from speed_ray.training import plan
from speed_ray.training.train_model import train_model
from tests.helpers.tiny_training import ignore, tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
EVERY, STEPS, WORKERS = 5, 60, 2
EMBEDDER = {
    "pooling": "mean", "global_batch_size": 16, "micro_batch_size": 4, "learning_rate": 1e-3, "precision": "fp32",
    "lora": None, "max_length": 64, "num_train_epochs": 100.0, "max_steps": STEPS, "save_steps": EVERY,
    "workers": {"num_workers": WORKERS},
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return str(tiny_model(tmp_path_factory.mktemp("base")))


@pytest.fixture
def curated(make_job, base):
    """A job whose examples are curated, and whose embedder is not trained."""
    job = make_job(embedder={"model": base, **EMBEDDER}, curate={"duplicate_similarity": None}).begin()
    job.make(Synthesize(job.recipe))
    pipeline.curate(job.run, job.recipe)
    return job


@pytest.fixture
def unbroken(curated):
    """The same training in a copy of the run, on one worker and without Ray."""
    shutil.copytree(curated.uri, f"{curated.uri}-unbroken")
    run = Run(f"{curated.uri}-unbroken")
    train_model(plan.plan_embedder(run, curated.recipe), ignore)
    return run


def embedder(run):
    return Model(run, "embedder")


def history(run):
    return [json.loads(line) for line in run.store.get("models/embedder/metrics.jsonl").splitlines()]


def weights(run):
    return dict(SentenceTransformer(str(embedder(run).fetch()), device="cpu").named_parameters())


def checkpointed(job):
    """The newest step that rank 0 has a checkpoint of, 0 for none."""
    names = job.run.store.names("models/embedder/checkpoints")
    return max([int(name[:8]) for name in names if name.endswith("/rank-0.json")], default=0)


def prove(run, unbroken):
    first, second = weights(run), weights(unbroken)
    assert max((first[name] - second[name]).abs().max().item() for name in first) < 1e-4
    ours, theirs = history(run), history(unbroken)
    assert [logged["step"] for logged in ours] == list(range(1, STEPS + 1))
    assert [logged["batches"] for logged in ours] == [logged["batches"] for logged in theirs]
    assert ours[-1]["loss"] == pytest.approx(theirs[-1]["loss"], rel=1e-3)


def is_training_worker(process):
    return any("RayTrainWorker" in part for part in process.cmdline())


def test_a_worker_killed(curated, drive, unbroken, nothing_left):
    driver = drive(curated, "train-embedder")
    driver.wait_until(lambda: checkpointed(curated))
    victim = next(process for process in driver.left() if is_training_worker(process))
    victim.kill()
    assert not embedder(curated.run).manifest(), "the worker was killed too late to prove anything"

    assert driver.ended() == 0, driver.said()

    prove(curated.run, unbroken)
    nothing_left(driver)


@pytest.mark.long
def test_the_driver_killed_at_some_step(curated, drive, unbroken, nothing_left):
    after = random.Random().choice([0, EVERY, 2 * EVERY, 4 * EVERY])
    driver = drive(curated, "train-embedder")
    driver.wait_until(lambda: checkpointed(curated) >= after and curated.run.store.names("models/embedder"))
    driver.kill()
    nothing_left(driver)
    assert not embedder(curated.run).manifest(), "the driver was killed too late to prove anything"

    driver = drive(curated, "train-embedder")

    assert driver.ended() == 0, driver.said()
    prove(curated.run, unbroken)
