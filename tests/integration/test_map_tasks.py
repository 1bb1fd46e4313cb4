"""Pieces shared out among actors: all are tried, and what went wrong is told at the end."""

import os

import pytest

from speed_ray.errors import Interrupted, UserError
from speed_ray.on_ray import map_tasks
from speed_ray.on_ray.session import session
from speed_ray.recipes.schema import Workers


@pytest.fixture(scope="module", autouse=True)
def one_ray():
    with session():
        yield


@pytest.fixture
def touch(tmp_path):
    """Work that leaves a file of its piece's name, but for some; a function of its own, which Ray sends as it is."""

    def work(name: str) -> None:
        if name == "wrong":
            raise UserError("there is no wrong")
        if name == "away":
            raise Interrupted("the network is away")
        if name == "always deadly" or (name == "deadly" and not (tmp_path / "died").exists()):
            (tmp_path / "died").touch()
            os._exit(1)
        (tmp_path / name).touch()

    return work


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.slow
def test_every_piece_is_done(touch, tmp_path):
    map_tasks.map_tasks("test", ["a", "b", "c"], touch, Workers(count=2))
    assert names(tmp_path) == ["a", "b", "c"]


@pytest.mark.slow
@pytest.mark.parametrize(("bad", "error"), [(["wrong", "away"], UserError), (["away"], Interrupted)])
def test_what_one_piece_lacks_ends_no_other(touch, tmp_path, bad, error):
    with pytest.raises(error, match="the network is away"):
        map_tasks.map_tasks("test", [*bad, "a", "b"], touch, Workers())
    assert names(tmp_path) == ["a", "b"]


@pytest.mark.slow
def test_a_lost_worker_is_made_up_for(touch, tmp_path):
    map_tasks.map_tasks("test", ["a", "deadly", "b"], touch, Workers(retries=1))
    assert names(tmp_path) == ["a", "b", "deadly", "died"]


@pytest.mark.slow
def test_a_worker_that_is_always_lost_ends_the_job(touch):
    with pytest.raises(Interrupted, match="a worker was lost"):
        map_tasks.map_tasks("test", ["always deadly"], touch, Workers(retries=1))
