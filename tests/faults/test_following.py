"""An embedder that is trained while its examples are still being written takes each shard once, stopped or not."""

import json
import random

import pytest

from speed_ray.errors import UserError
from speed_ray.storage.trained_models import Model
from speed_ray.training import plan
from speed_ray.training.train_model import train_model
from tests.helpers.tiny_training import ignore, tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
EMBEDDER = {
    "pooling": "mean", "global_batch_size": 16, "micro_batch_size": 16, "learning_rate": 1e-3, "precision": "fp32",
    "lora": None, "max_length": 64, "save_steps": 3, "stream": True,
}  # fmt: skip
SLOWLY = {
    "engine": "simulated", "prefill": 1e9, "decode": 1e9, "max_tokens_per_stream": 250.0, "max_concurrency": 16,
}  # fmt: skip


class Cut(Exception):
    pass


@pytest.fixture
def job(make_job, tmp_path):
    model = tiny_model(tmp_path / "base")
    return make_job(generator=SLOWLY, embedder={"model": str(model), **EMBEDDER}).begin()


def windows(run):
    model = Model(run, "embedder")
    names = model.store.names(f"{model.path}/windows")
    return [json.loads(model.store.get(f"{model.path}/windows/{name}")) for name in sorted(names)]


def facts(run):
    return Model(run, "embedder").published()["facts"]["rows"]


def test_training_follows_a_running_synthesis_and_takes_each_shard_once(job, drive):
    driver = drive(job)
    driver.wait_until(lambda: job.commits() > 1)
    training = plan.plan_embedder(job.run, job.recipe)
    began_with = []
    train_model(training, lambda metrics: began_with.append(job.commits()))
    assert driver.ended() == 0, driver.said()
    assert began_with[1] < 46, "the first step came before the last example"
    assert sorted(shard for window in windows(job.run) for shard in window) == list(range(46))
    assert windows(job.run)[-1] == [] and len(windows(job.run)) > 2


def test_a_follower_that_was_stopped_sees_the_batches_of_one_that_was_not(job, drive):
    driver = drive(job)
    driver.wait_until(lambda: job.commits() > 1)
    training = plan.plan_embedder(job.run, job.recipe)
    last = random.Random().randrange(4, 20)

    def cut(metrics):
        if metrics["step"] == last:
            raise Cut

    with pytest.raises(Cut):
        train_model(training, cut)
    train_model(training, ignore)
    assert driver.ended() == 0, driver.said()
    first = facts(job.run)
    model = Model(job.run, "embedder")
    kept = [name for name in model.store.names(model.path) if not name.startswith("windows")]
    for name in kept:
        model.store.delete(f"{model.path}/{name}")
    train_model(training, ignore)  # over the windows that are written down
    assert facts(job.run) == first


def test_there_is_nothing_to_follow_yet(job):
    with pytest.raises(UserError, match=r"is not begun, and embedder streams its rows \(embedder\.stream\)"):
        train_model(plan.plan_embedder(job.run, job.recipe), ignore)
