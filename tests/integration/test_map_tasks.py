"""Independent tasks on a pool of actors: all are tried, and the errors come at the end."""

import os
import time

import pytest

from speed_ray.errors import Interrupted, UserError
from speed_ray.on_ray.map_tasks import map_tasks
from speed_ray.on_ray.session import session
from speed_ray.recipes.training_settings import Workers


@pytest.fixture(scope="module", autouse=True)
def one_ray():
    with session():
        yield


@pytest.fixture
def touch(tmp_path):
    """Work that leaves a file of its piece's name, but for some; a function of its own, which Ray sends as it is."""

    def work(name: str) -> str:
        if name == "wrong":
            raise UserError("there is no wrong")
        if name == "away":
            raise Interrupted("the network is away")
        if name == "odd":
            raise KeyError("no such column")
        if name == "always deadly" or (name == "deadly" and not (tmp_path / "died").exists()):
            (tmp_path / "died").touch()
            os._exit(1)
        (tmp_path / name).touch()
        return name.upper()

    return work


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.slow
def test_every_task_is_done(touch, tmp_path):
    results = dict(map_tasks("test", ["a", "b", "c"], lambda: touch, Workers(num_workers=2)))
    assert results == {0: "A", 1: "B", 2: "C"}
    assert names(tmp_path) == ["a", "b", "c"]


@pytest.mark.slow
@pytest.mark.parametrize(("bad", "error"), [(["wrong", "away"], UserError), (["away"], Interrupted)])
def test_a_task_that_fails_ends_no_other(touch, tmp_path, bad, error):
    with pytest.raises(error, match="the network is away"):
        list(map_tasks("test", [*bad, "a", "b"], lambda: touch, Workers()))
    assert names(tmp_path) == ["a", "b"]


@pytest.mark.slow
def test_an_unforeseen_error_ends_no_other_task(touch, tmp_path):
    with pytest.raises(Interrupted, match=r"^odd: KeyError: 'no such column'\nThis was not foreseen"):
        list(map_tasks("test", ["odd", "a"], lambda: touch, Workers()))
    assert names(tmp_path) == ["a"]


@pytest.mark.slow
def test_a_lost_worker_is_replaced(touch, tmp_path):
    list(map_tasks("test", ["a", "deadly", "b"], lambda: touch, Workers(max_failures=1)))
    assert names(tmp_path) == ["a", "b", "deadly", "died"]


@pytest.mark.slow
def test_a_worker_that_is_always_lost_ends_the_job(touch):
    with pytest.raises(Interrupted, match="test, 1 restarts included: a worker ended"):
        list(map_tasks("test", ["always deadly"], lambda: touch, Workers(max_failures=1)))


@pytest.mark.slow
def test_each_actor_loads_once_what_it_needs():
    def load():
        process = f"{os.getpid()} {time.monotonic_ns()}"
        return lambda task: process

    assert len(set(dict(map_tasks("test", range(8), load, Workers(num_workers=2))).values())) <= 2
