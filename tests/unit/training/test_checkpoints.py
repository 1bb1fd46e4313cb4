"""Checkpoints: all ranks' files or none at all, only whole ones, only the newest two."""

import os
import pickle
import shutil

import pytest
import torch

from speed_ray.errors import UserError
from speed_ray.storage.run import Run
from speed_ray.storage.store import AccessRefused
from speed_ray.storage.trained_models import Model
from speed_ray.training import checkpoints
from speed_ray.training.checkpoints import Checkpoints, weights_only_loading


@pytest.fixture
def model(tmp_path):
    return Model(Run(str(tmp_path / "run")), "junior")


@pytest.fixture
def rank_of(model, tmp_path, monkeypatch):
    """Make the checkpoints of one rank of two."""

    def make(rank: int, world: int = 2, attempt: str = "aa", zero: int = 2, plan: str = "the plan") -> Checkpoints:
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(world))
        return Checkpoints(model, plan, zero, attempt)

    return make


@pytest.fixture
def save(tmp_path):
    def save(kept: Checkpoints, step: int, best_step: int | None = None) -> None:
        folder = tmp_path / f"local-{kept.rank}-{step}"
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / f"state-{kept.rank}").write_bytes(f"{step} of {kept.rank}".encode())
        kept.save(step, folder, best_step)
        kept.wait()
        assert not folder.exists(), "the local disk would fill up"

    return save


def test_complete_when_every_rank_has_listed_its_files(rank_of, save, tmp_path):
    first, second = rank_of(0), rank_of(1)
    save(first, 10)
    assert first.complete() == []
    save(second, 10)
    (whole,) = second.complete()
    assert (whole.step, whole.world_size, whole.zero_stage) == (10, 2, 2)
    assert first.download(whole, tmp_path / "back")
    assert [(tmp_path / f"back/deep/state-{rank}").read_text() for rank in (0, 1)] == ["10 of 0", "10 of 1"]


def test_files_without_a_list_are_no_checkpoint(rank_of, save, model):
    first, second = rank_of(0), rank_of(1)
    save(first, 10)
    save(second, 10)
    model.store.delete("models/junior/checkpoints/00000010-aa/rank-1.json")
    assert first.complete() == []


def test_two_starts_never_mix(rank_of, save):
    save(rank_of(0, attempt="aa"), 10)
    late = rank_of(1, attempt="bb")
    save(late, 10)
    assert late.complete() == []


def test_checkpoints_of_another_plan_are_passed_over(rank_of, save):
    save(rank_of(0, world=1), 10)
    other = rank_of(0, world=1, attempt="bb", plan="another plan")
    assert other.complete() == []
    save(other, 5)
    assert [whole.step for whole in other.complete()] == [5]
    assert [whole.step for whole in rank_of(0, world=1).complete()] == [10]


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b'{"world": 1}'])
def test_a_list_that_is_damaged_is_no_checkpoint(rank_of, save, model, content):
    kept = rank_of(0, world=1)
    save(kept, 10)
    model.store.put("models/junior/checkpoints/00000010-aa/rank-0.json", content)
    assert kept.complete() == []


def test_a_damaged_file_is_noticed(rank_of, save, model, tmp_path):
    kept = rank_of(0, world=1)
    save(kept, 10)
    (whole,) = kept.complete()
    model.store.put("models/junior/checkpoints/00000010-aa/0/deep/state-0", b"10 of 1")
    assert not kept.download(whole, tmp_path / "back")
    model.store.delete("models/junior/checkpoints/00000010-aa/0/deep/state-0")
    assert not kept.download(whole, tmp_path / "back")


def test_the_best_one_stays_however_old_it_is(rank_of, save, model):
    kept = rank_of(0, world=1)
    for step in (10, 20, 30, 40):
        save(kept, step, best_step=20 if step > 10 else 10)
    assert [whole.step for whole in kept.complete()] == [40, 30, 20]


def test_the_newest_two_complete_ones_stay(rank_of, save, model):
    first, second = rank_of(0), rank_of(1)
    for step in (10, 20, 30):
        save(second, step)
        save(first, step)
    save(first, 40)
    assert [whole.step for whole in first.complete()] == [30, 20]
    assert {name.partition("/")[0] for name in model.store.names("models/junior/checkpoints")} == {
        "00000020-aa",
        "00000030-aa",
        "00000040-aa",
    }, "what other ranks are still uploading stays too"


def test_a_failed_upload_is_told_at_the_next_save(rank_of, save, model, tmp_path, monkeypatch):
    kept = rank_of(0, world=1)
    monkeypatch.setattr(checkpoints, "file_fingerprint", lambda file: 1 / 0)
    folder = tmp_path / "local"
    folder.mkdir()
    (folder / "state").write_bytes(b"-")
    kept.save(1, folder)
    with pytest.raises(ZeroDivisionError):
        kept.save(2, shutil.copytree(folder, tmp_path / "local-2"))


class Hostile:
    """What a pickle can do: call anything when it is loaded."""

    def __reduce__(self):
        return os.mkdir, ("loaded",)


def test_nothing_in_a_checkpoint_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(Hostile(), "state.pt")
    with weights_only_loading(0), pytest.raises(pickle.UnpicklingError):
        torch.load("state.pt", weights_only=False)  # as DeepSpeed asks
    assert not (tmp_path / "loaded").exists()


@pytest.mark.parametrize(
    ("wrote", "asks", "fits"),
    [((2, 2), (2, 2), True), ((2, 0), (1, 0), True), ((2, 2), (1, 2), False), ((2, 2), (2, 3), False)],
)
def test_states_go_to_workers_that_can_hold_them(rank_of, save, tiny_training_plan, wrote, asks, fits):
    for rank in range(wrote[0]):
        save(rank_of(rank, world=wrote[0], zero=wrote[1]), 10)
    now = rank_of(0, world=asks[0], zero=asks[1])
    (whole,) = now.complete()
    training = tiny_training_plan(zero_stage=asks[1])
    if fits:
        checkpoints.check_same_sharding(training, now, whole)
    else:
        with pytest.raises(
            UserError, match=r"written by 2 workers with ZeRO stage 2; .*\n.*junior.workers.num_workers: 2"
        ):
            checkpoints.check_same_sharding(training, now, whole)


@pytest.fixture
def tiny_training_plan(tmp_path):
    from speed_ray.training import plan
    from tests.helpers.tiny_training import tiny_model, tiny_recipe

    base = tiny_model(tmp_path / "base")
    return lambda **settings: plan.plan_junior(Run(str(tmp_path / "run")), tiny_recipe(base, **settings))


def test_a_training_whose_credentials_may_not_delete_keeps_all_its_checkpoints(rank_of, save, model, monkeypatch):
    def refuse(path: str) -> None:
        raise AccessRefused(path)

    monkeypatch.setattr(model.store, "delete", refuse)
    kept = rank_of(0, world=1)
    for step in (10, 20, 30):
        save(kept, step)
    assert [checkpoint.step for checkpoint in kept.complete()] == [30, 20, 10]
