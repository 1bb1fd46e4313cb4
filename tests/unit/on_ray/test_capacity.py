"""Nodes are checked before work begins: capacity for an engine, the run's folder, packages, clocks."""

import time

import pytest
from ray.cluster_utils import Cluster

from speed_ray.errors import UserError
from speed_ray.on_ray import capacity
from speed_ray.on_ray.capacity import ResourceNeed
from speed_ray.recipes.stage_settings import Pool
from speed_ray.recipes.training_settings import TrainingWorkers
from speed_ray.storage.run import Run
from speed_ray.storage.store import AccessRefused

HOST = {"CPU": 8.0, "GPU": 4.0, "accelerator_type:H100": 1.0}


@pytest.mark.parametrize(
    ("takes", "fit"),
    [
        (Pool(), 8),
        (Pool(num_cpus=2, num_gpus=1), 4),
        (Pool(num_cpus=0.1, num_gpus=0.3), 13),
        (Pool(num_gpus=8), 0),
        (Pool(num_gpus=1, accelerator_type="H100"), 4),
        (Pool(num_gpus=1, accelerator_type="A100"), 0),
        (Pool(num_gpus=1, label_selector={"zone": "a"}), 4),
        (Pool(num_gpus=1, label_selector={"zone": "b"}), 0),
        (Pool(num_cpus=0), 1),
    ],
)
def test_how_many_a_node_holds(takes, fit):
    assert ResourceNeed("synthesize.pool", takes).fits(HOST, {"zone": "a"}) == fit


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pool", "said"),
    [
        ({"num_gpus": 1}, "synthesize.pool asks for CPU 1, GPU 1 on one node"),
        ({"label_selector": {"zone": "b"}}, "synthesize.pool asks for CPU 1, zone=b on one node"),
    ],
)
def test_a_cluster_without_capacity_is_refused_before_work_begins(make_job, drive, pool, said):
    job = make_job(synthesize__pool=pool).begin()
    driver = drive(job)
    assert driver.ended() == 2, driver.said()
    assert said in driver.said() and "Nothing can be added to it" in driver.said()
    assert "lower synthesize.pool to what is there" in driver.said() and "Traceback" not in driver.said()
    assert not job.commits()


@pytest.mark.slow
def test_nodes_of_a_cluster_are_checked(make_job, drive):
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=2, labels={"zone": "a"})
        job = make_job(synthesize__pool={"num_cpus": 2.0, "label_selector": {"zone": "a"}}).begin()
        driver = drive(job, RAY_ADDRESS=cluster.address)
        assert driver.ended() == 0, driver.said()
        assert not job.run.store.names("probes")

        doctor = drive(job, "doctor", RAY_ADDRESS=cluster.address)
        assert doctor.ended() == 0 and f"nodes at {cluster.address}: CPU" in doctor.said(), doctor.said()

        relative = make_job("relative")
        relative.uri = "relative"
        driver = drive(relative, "brainstorm", RAY_ADDRESS=cluster.address)
        assert driver.ended() == 2 and "--run relative is a relative path" in driver.said(), driver.said()
    finally:
        cluster.shutdown()


def answer(**changed):
    return {"versions": capacity.package_versions(), "time": time.time(), "seen": b"token", "fault": "", **changed}


def test_a_node_with_other_packages_is_named(tmp_path):
    versions = {**capacity.package_versions(), "pyarrow": "1.0", "speed_ray": "0.0"}
    with pytest.raises(UserError, match=r"10\.0\.0\.7 has other packages.*speed_ray 0\.0 .*pyarrow 1\.0 \(here "):
        capacity._compare_node(Run(str(tmp_path)), "10.0.0.7", b"token", answer(versions=versions))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"seen": None}, "what this driver wrote there is not there"),
        ({"seen": b"another"}, "what this driver wrote there is not there"),
        ({"seen": None, "fault": "no credentials were found"}, "no credentials were found"),
    ],
)
def test_a_node_that_does_not_see_the_run_is_named(tmp_path, changed, said):
    with pytest.raises(UserError, match=f"node 10.0.0.7 does not see the run's folder {tmp_path}") as error:
        capacity._compare_node(Run(str(tmp_path)), "10.0.0.7", b"token", answer(**changed))
    assert said in str(error.value)


def test_a_clock_that_is_off_is_a_warning(tmp_path, caplog):
    run = Run(str(tmp_path))
    capacity._compare_node(run, "10.0.0.7", b"token", answer(time=time.time() - 3600))
    assert "clock of node 10.0.0.7 is -3600 s off" in caplog.text
    capacity._compare_node(run, "10.0.0.8", b"token", answer())
    assert "10.0.0.8" not in caplog.text


def test_workers_that_come_and_go_need_capacity_for_the_fewest():
    workers = TrainingWorkers(num_workers=4, min_workers=2, num_gpus=1)
    assert ResourceNeed("junior.workers", workers, workers.counts[0]).count == 2


def test_a_probe_that_may_not_be_deleted_stays(run, monkeypatch):
    """Credentials that list, read and create are enough for a job."""

    def refuse(path: str) -> None:
        raise AccessRefused(path)

    monkeypatch.setattr(run.store, "delete", refuse)
    monkeypatch.setattr(capacity, "uses_shared_cluster", lambda: True)
    monkeypatch.setattr(capacity, "_alive", list)
    monkeypatch.setattr(capacity.ray, "wait", lambda *_, **__: ([], []))
    capacity.check_nodes_match(run)
    assert len(run.store.names("probes")) == 1
