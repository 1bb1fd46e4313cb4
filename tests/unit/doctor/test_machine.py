"""Check that the doctor tells what a machine has too little of, each in a line of its own."""

import resource
from types import SimpleNamespace

import pytest

from speed_ray.doctor import machine, model_memory
from speed_ray.doctor.model_memory import Gpu
from speed_ray.doctor.wanted_places import places_of
from speed_ray.recipes import load_recipe

GB = 2**30


def disk(total: float, free: float):
    return lambda folder: SimpleNamespace(total=int(total * GB), free=int(free * GB), used=int((total - free) * GB))


@pytest.mark.parametrize(("size", "level"), [(64, "ok"), (0.0625, "warn")])
def test_shared_memory_is_measured_against_rays_share(monkeypatch, size, level):
    monkeypatch.setattr(machine, "memory_limit", lambda: 100 * GB)
    monkeypatch.setattr(machine.shutil, "disk_usage", disk(size, size))
    assert machine.check_shared_memory().level == level


def test_a_machine_without_shared_memory_is_warned():
    assert machine.check_shared_memory("/no/such/folder").level == "warn"


@pytest.mark.parametrize(("hard", "level"), [(resource.RLIM_INFINITY, "ok"), (20_000, "ok"), (1_024, "fail")])
def test_open_files(monkeypatch, hard, level):
    monkeypatch.setattr(machine.resource, "getrlimit", lambda _: (1_024, hard))
    assert machine.check_open_files().level == level


@pytest.mark.parametrize(("free", "level"), [(100, "ok"), (15, "warn"), (5, "fail")])
def test_a_full_disk(monkeypatch, free, level):
    monkeypatch.setattr(machine.shutil, "disk_usage", disk(200, free))
    assert {each.level for each in machine.check_disks(None)} == {level}


@pytest.mark.parametrize(
    ("gpus", "level", "said"),
    [
        ([], "fail", "none, and junior.workers asks for 8 at once"),
        ([Gpu("H200", 141 * GB, "580.1")] * 16, "ok", "16 (H200 of 141.0 GB; driver 580.1)"),
        ([Gpu("H200", 141 * GB, "550.1")] * 16, "fail", "driver 550.1"),
    ],
    ids=["none", "enough", "old driver"],
)
def test_gpus_against_what_a_recipe_asks_for(gpus, level, said):
    places = [place for place in places_of(load_recipe("speed_8b")) if place.actors <= 8]
    found = model_memory.check_gpus(gpus, places)
    assert found.level == level and said in found.found


def test_no_gpu_is_fine_where_nobody_asks_for_one():
    assert model_memory.check_gpus([], list(places_of(load_recipe("documents")))).level == "ok"


def test_the_drivers_words_are_read(monkeypatch, tmp_path):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771, 580.65.06'\necho 'Unable to determine'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert model_memory.find_gpus() == [Gpu("NVIDIA H200", 143771 << 20, "580.65.06")]


@pytest.mark.parametrize(("memory", "level"), [(64, "ok"), (3, "warn"), (2, "fail")])
def test_a_model_is_measured_against_memory(monkeypatch, memory, level):
    monkeypatch.setattr(model_memory, "memory_limit", lambda: int(memory * GB))
    recipe = load_recipe("documents", ["embedder=null"])  # SmolLM2-135M, and 2 GB for its prompts' states
    assert [each.level for each in model_memory.check_memory(recipe, [])] == [level]


def test_a_model_is_measured_against_the_smallest_gpu():
    overrides = ["generator.engine_kwargs={dtype: float32, gpu_memory_utilization: 0.5}", "synthesize.pool.num_gpus=1"]
    recipe = load_recipe("documents", [*overrides, "embedder=null"])
    gpus = [Gpu("large", 80 * GB, "580"), Gpu("small", GB // 2, "580")]
    [found] = model_memory.check_memory(recipe, gpus)
    assert found.level == "fail" and "of 0.2 GB of a GPU" in found.found
