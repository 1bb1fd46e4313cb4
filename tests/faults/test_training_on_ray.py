"""A training under Ray Train that loses a worker or its driver goes on from its last complete checkpoint.

`speed-ray align-junior` runs in a process with a Ray of its own and trains a tiny random Llama on two CPU workers. Its
prompts are real; the lessons are a simulated teacher's.
"""

import json
import sys
from functools import partial

import pytest
from ray.cluster_utils import Cluster
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from speed_ray.stages.draft import Draft
from speed_ray.storage.trained_models import Model
from speed_ray.training import plan
from speed_ray.training.train_model import train_model
from tests.conftest import small_job
from tests.helpers.tiny_training import tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
EVERY, STEPS, WORKERS = 5, 40, 2
JUNIOR = {
    "global_batch_size": 4, "micro_batch_size": 2, "num_train_epochs": 8.0, "max_steps": STEPS, "save_steps": EVERY,
    "learning_rate": 1e-3,
    "precision": "fp32", "lora": {"r": 4, "lora_alpha": 8}, "max_length": 4096, "eval_fraction": 0.0,
    "workers": {"num_workers": WORKERS},
}  # fmt: skip

NOTES_ITS_STARTS = """
import sys
from speed_ray.cli import main
from speed_ray.on_ray import train
work, notes = train._train_worker, sys.argv.pop(1)
def noted(config):
    import ray
    with open(notes, "a") as file:
        file.write(ray.get(config["metrics_actor"].error.remote())[0] + ";")
    work(config)
train._train_worker = noted
main()
"""

RAISES_WHAT_NOBODY_FORESAW = """
from speed_ray import pipeline
def train_model(training, report):
    raise KeyError("weights of no layer")
pipeline.train_model = train_model
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return str(tiny_model(tmp_path_factory.mktemp("base"), window=4096))


@pytest.fixture
def make_drafted(tmp_path, base):
    """Make a job whose junior has all its lessons and is not trained."""
    return partial(drafted_job, tmp_path, base)


def drafted_job(folder, base, **junior):
    generator = {"engine": "vllm", "model": base}
    job = small_job(folder, generator=generator, junior={**JUNIOR, **junior}, draft__examples=46).begin()
    job.make(Draft(job.recipe))
    return job


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, base):
    """The weights of a training that nothing happened to, on one worker and without Ray."""
    job = drafted_job(tmp_path_factory.mktemp("unbroken"), base)
    train_model(plan.plan_junior(job.run, job.recipe), lambda metrics: None)
    return weights(job)


def junior(job):
    return Model(job.run, "junior")


def weights(job):
    (file,) = junior(job).fetch().glob("*.safetensors")
    return load_file(file)


def complete(job, workers=WORKERS):
    """The steps of the checkpoints that every rank has listed."""
    lists = [name for name in job.run.store.names("models/junior/checkpoints") if "/rank-" in name]
    folders = {name.partition("/")[0] for name in lists}
    whole = (folder for folder in folders if all(f"{folder}/rank-{rank}.json" in lists for rank in range(workers)))
    return sorted(int(folder[:8]) for folder in whole)


def starts(job):
    """The steps that each start of the training logged, the last start's at the end: TensorBoard has a file of each.

    What a start did after its last checkpoint died with it.
    """
    steps = []
    for name in job.run.store.names("models/junior/logs"):
        events = EventAccumulator(f"{job.uri}/models/junior/logs/{name}")
        events.Reload()
        steps.append([event.step for event in events.Scalars("loss")])
    return sorted(steps)


def prove(job, unbroken, after):
    """The weights are those of the unbroken training, and no step before the checkpoint of step `after` was redone."""
    made = weights(job)
    assert max((made[name] - unbroken[name]).abs().max().item() for name in unbroken) < 1e-4
    history = [json.loads(line) for line in job.run.store.get("models/junior/metrics.jsonl").splitlines()]
    assert [logged["step"] for logged in history if "loss" in logged] == list(range(1, STEPS + 1))
    *_, went_on = starts(job)
    assert went_on == list(range(went_on[0], STEPS + 1))
    assert went_on[0] % EVERY == 1 and went_on[0] > after, "more was redone than since the last checkpoint"


def test_a_worker_killed(make_drafted, drive, unbroken, nothing_left):
    job = make_drafted()
    driver = drive(job, "align-junior")
    driver.wait_until(lambda: complete(job))
    victim = next(process for process in driver.left() if is_training_worker(process))
    victim.kill()
    last = complete(job)[-1]
    assert last < STEPS and not junior(job).manifest(), "the worker was killed too late to prove anything"

    assert driver.ended() == 0, driver.said()

    assert len(starts(job)) == 2
    prove(job, unbroken, last)
    nothing_left(driver)


@pytest.mark.long
def test_fewer_workers_go_on_where_a_node_is_lost(make_drafted, drive, unbroken):
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        nodes = [cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)]
        job = make_drafted(workers={"num_workers": 2, "min_workers": 1})
        # Ray Train first waits for as many as before, by default a minute.
        patience = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "10"}
        driver = drive(job, "align-junior", RAY_ADDRESS=cluster.address, **patience)
        driver.wait_until(lambda: complete(job))
        cluster.remove_node(nodes[0], allow_graceful=False)
        last = complete(job)[-1]
        assert last < STEPS and not junior(job).manifest(), "the node was lost too late to prove anything"

        assert driver.ended() == 0, driver.said()
        assert complete(job) == [], "two workers wrote the last checkpoint, where there is room for one"
        prove(job, unbroken, last)
    finally:
        cluster.shutdown()


def is_training_worker(process):
    return any("RayTrainWorker" in part for part in process.cmdline())


def test_the_driver_killed(make_drafted, drive, unbroken, nothing_left):
    job = make_drafted(workers={"num_workers": 1})
    driver = drive(job, "align-junior")
    driver.wait_until(lambda: complete(job, workers=1))
    driver.kill()
    nothing_left(driver)
    last = complete(job, workers=1)[-1]
    assert not junior(job).manifest(), "the driver was killed too late to prove anything"

    driver = drive(job, "align-junior")

    assert driver.ended() == 0, driver.said()
    prove(job, unbroken, last)


@pytest.mark.long
def test_the_link_between_its_workers_cut(cluster_of_two, make_drafted, unbroken):
    node = cluster_of_two.begin()
    job = make_drafted(workers={"num_workers": WORKERS, "num_cpus": 1.5})
    driver = cluster_of_two.submit(job, "align-junior")
    driver.wait_until(lambda: complete(job))

    cluster_of_two.cut()
    last = complete(job)[-1]
    assert last < STEPS and not junior(job).manifest(), "the link was cut too late to prove anything"
    driver.wait_until(cluster_of_two.has_given_up)
    cluster_of_two.mend()
    assert node.ended() == 3, node.said()
    cluster_of_two.join()

    assert driver.ended() == 0, driver.said()
    assert len(starts(job)) == 2
    prove(job, unbroken, last)


@pytest.mark.long
def test_the_link_between_its_workers_stays_cut(cluster_of_two, make_drafted, unbroken):
    node = cluster_of_two.begin()
    job = make_drafted(workers={"num_workers": WORKERS, "num_cpus": 1.5, "watchdog_minutes": 2})
    driver = cluster_of_two.submit(job, "align-junior")
    driver.wait_until(lambda: complete(job))

    cluster_of_two.cut()

    assert driver.ended() == 4, driver.said()
    own = [line for line in driver.said().splitlines() if " pid=" not in line]  # Ray Train's actors log what they met
    assert "Traceback" not in "\n".join(own), driver.said()
    last = complete(job)[-1]
    cluster_of_two.mend()
    assert node.ended() == 3, node.said()
    cluster_of_two.join()
    driver = cluster_of_two.submit(job, "align-junior")
    assert driver.ended() == 0, driver.said()
    prove(job, unbroken, last)


def test_a_users_mistake_is_not_tried_again(make_drafted, drive, nothing_left, tmp_path):
    job = make_drafted(learning_rate=10**38, warmup_ratio=0.0, lora=None)
    notes = tmp_path / "starts"

    driver = drive(job, "align-junior", program=[sys.executable, "-c", NOTES_ITS_STARTS, str(notes)])

    assert driver.ended() == 2, driver.said()
    assert "The training of junior diverged: the " in driver.said()
    assert "a lower junior.learning_rate" in driver.said()
    assert "Traceback" not in driver.said(), driver.said()
    began = notes.read_text().split(";")[:-1]
    assert 1 <= began.count("") <= WORKERS, "it was trained again, to diverge again"
    nothing_left(driver)


def test_an_error_that_would_come_back_is_not_tried_again(make_drafted, drive, nothing_left, tmp_path):
    job, notes = make_drafted(), tmp_path / "starts"
    program = [sys.executable, "-c", RAISES_WHAT_NOBODY_FORESAW + NOTES_ITS_STARTS, str(notes)]

    driver = drive(job, "align-junior", program=program)

    assert driver.ended() == 3, driver.said()
    assert "junior: KeyError: 'weights of no layer'" in driver.said()
    assert "Traceback" not in driver.said(), driver.said()
    began = notes.read_text().split(";")[:-1]
    assert 1 <= began.count("") <= WORKERS, "it was tried again, to fail again"
    nothing_left(driver)
