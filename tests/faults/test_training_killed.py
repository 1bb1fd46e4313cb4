"""A training whose worker or launcher is killed goes on from its last complete checkpoint, as if unbroken."""

import json
import os
import signal
import subprocess
import time

import psutil
import pytest
from safetensors.torch import load_file

from speed_ray.storage.run import DRAFTS, Run
from speed_ray.storage.store import LocalFolder
from speed_ray.storage.trained_models import Model
from speed_ray.training import plan
from speed_ray.training.train_model import train_model
from tests.helpers.forked_workers import start_training, start_workers, train_by_command
from tests.helpers.tiny_serving import free_port
from tests.helpers.tiny_training import (
    command,
    cpus,
    tiny_model,
    tiny_recipe,
    tiny_rows,
    training_arguments,
    write_rows,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
EVERY, STEPS = 10, 60
SETTINGS = {
    "save_steps": EVERY,
    "max_steps": STEPS,
    "num_train_epochs": 10.0,
    "micro_batch_size": 2,
    "eval_fraction": 0.0,
}


def train_until_the_second_list(arguments):
    """Train, and die where the second checkpoint's list of files is about to be written."""
    put = LocalFolder.put

    def dying(store, path, data):
        if "00000020-" in path and path.endswith("rank-0.json"):
            os.kill(os.getpid(), signal.SIGKILL)
        put(store, path, data)

    LocalFolder.put = dying
    train_by_command(arguments)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def unbroken(base, tmp_path_factory):
    """The weights of a training that nothing happened to, on one worker."""
    run = drafted(tmp_path_factory.mktemp("unbroken") / "run")
    train_model(plan.plan_junior(run, tiny_recipe(base, **SETTINGS)), lambda metrics: None)
    return weights(run)


def drafted(folder):
    run = Run(str(folder))
    write_rows(run, DRAFTS, tiny_rows(80))
    return run


def weights(run):
    (file,) = Model(run, "junior").fetch().glob("*.safetensors")
    return load_file(file)


def checkpoints(run):
    """The steps that every rank has listed."""
    lists = [name for name in run.store.names("models/junior/checkpoints") if "/rank-" in name]
    return sorted(int(name[:8]) for name in lists if name.endswith("rank-1.json") and name[:-6] + "0.json" in lists)


def prove(run, unbroken):
    """The weights are those of the unbroken training, and every step was made once as far as its metrics tell."""
    made = weights(run)
    assert max((made[name] - unbroken[name]).abs().max().item() for name in unbroken) < 1e-4
    history = [json.loads(line) for line in run.store.get("models/junior/metrics.jsonl").splitlines()]
    assert [logged["step"] for logged in history if "loss" in logged] == list(range(1, STEPS + 1))


def first_step(said):
    """The first step that a training made, by its own words."""
    return next(int(line.split("  step ")[1].split()[0]) for line in said.splitlines() if line.startswith("loss "))


@pytest.mark.parametrize(("zero", "after"), [(2, 2), (3, 2), (0, 1)], ids=["zero2", "zero3", "zero0-on-one-worker"])
def test_a_worker_killed(base, unbroken, tmp_path, zero, after):
    run, recipe = drafted(tmp_path / "run"), tiny_recipe(base, zero_stage=zero, **SETTINGS)
    killed = start_training(recipe, run, "junior", 2)
    while not checkpoints(run):
        assert all(worker.is_alive() for worker in killed.processes), killed.said()
        time.sleep(0.02)
    killed.processes[1].kill()
    assert killed.wait() != 0
    complete = checkpoints(run)
    assert not Model(run, "junior").manifest(), "the worker was killed too late to prove anything"

    resumed = start_training(recipe, run, "junior", after)

    assert resumed.wait() == 0, resumed.said()
    assert first_step(resumed.said()) == complete[-1] + 1, "more was redone than since the last checkpoint, or less"
    prove(run, unbroken)


def test_all_killed_while_a_checkpoint_is_uploaded(base, unbroken, tmp_path):
    run, recipe = drafted(tmp_path / "run"), tiny_recipe(base, **SETTINGS)
    arguments = training_arguments(recipe, run, "junior")
    killed = start_workers(tmp_path / "killed", 1, train_until_the_second_list, arguments)
    assert killed.wait() == -signal.SIGKILL, killed.said()
    half = [name for name in run.store.names("models/junior/checkpoints") if name.startswith("00000020-")]
    assert half and not any("rank-" in name for name in half), "there is no half-written checkpoint"

    resumed = start_training(recipe, run, "junior", 1)

    assert resumed.wait() == 0, resumed.said()
    assert first_step(resumed.said()) == EVERY + 1, "the half-written checkpoint was loaded"
    prove(run, unbroken)


def test_the_launcher_killed(base, unbroken, tmp_path):
    run, recipe = drafted(tmp_path / "run"), tiny_recipe(base, **SETTINGS)
    process = subprocess.Popen(
        command(recipe, run, "junior", 1),
        env=cpus(),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not run.store.names("models/junior/checkpoints"):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not Model(run, "junior").manifest(), "it was killed too late to prove anything"

    resumed = start_training(recipe, run, "junior", 1)

    assert resumed.wait() == 0, resumed.said()
    prove(run, unbroken)


@pytest.mark.long
def test_two_nodes_that_share_a_temp_dir_go_on_from_the_checkpoint(base, unbroken, tmp_path):
    run, recipe = drafted(tmp_path / "run"), tiny_recipe(base, zero_stage=0, **SETTINGS)
    killed = subprocess.Popen(command(recipe, run, "junior", 2), env=cpus(), stdout=subprocess.DEVNULL)
    while not checkpoints(run):
        time.sleep(0.02)
    for process in [*psutil.Process(killed.pid).children(recursive=True), killed]:
        process.kill()  # each by itself: torchrun's workers are in sessions of their own
    killed.wait()
    assert not Model(run, "junior").manifest(), "it was killed too late to prove anything"
    # One launcher on each: both workers are the first of their node, and fetch a checkpoint of their own.
    alone, port = command(recipe, run, "junior", 1), free_port()
    at = alone.index("--standalone")
    nodes = [
        subprocess.Popen(
            [*alone[:at], "--nnodes=2", f"--node-rank={number}", f"--master-port={port}", *alone[at + 1 :]],
            env=cpus(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in (0, 1)
    ]

    said = [node.communicate() for node in nodes]

    assert [node.returncode for node in nodes] == [0, 0], said
    assert first_step("".join(out for out, _ in said)) > 1, "it began anew beside a checkpoint"
    prove(run, unbroken)
