"""Packages of this machine against the pinned list that comes with the package."""

import sys
from importlib import metadata

import pytest

from speed_ray.doctor import python_packages
from tests.helpers.paths import ROOT


@pytest.mark.parametrize("machine", ["cpu", "gpu"])
def test_the_list_comes_with_the_package(machine):
    lines = (ROOT / "requirements" / f"{machine}.txt").read_text().splitlines()
    pins = python_packages.read_pins(machine)
    assert len(pins) == sum("==" in line and not line.startswith((" ", "#")) for line in lines)
    assert pins["ray"] == "2.60.0"


def test_this_environment_is_as_pinned():
    assert [each.level for each in python_packages.check_packages(["train", "models"])] == ["ok"]


def test_copies_later_on_the_path_are_not_what_is_imported(tmp_path, monkeypatch):
    copy = tmp_path / "packaging-1.0.dist-info" / "METADATA"
    copy.parent.mkdir()
    copy.write_text("Metadata-Version: 2.1\nName: packaging\nVersion: 1.0\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    assert [each.level for each in python_packages.check_packages([])] == ["ok"]


@pytest.fixture
def installed(monkeypatch):
    def change(**versions: str | None) -> None:
        found = {each.name.lower(): each for each in reversed(list(metadata.distributions()))}
        for name, version in versions.items():
            found.pop(name)
            if version is not None:
                found[name] = type("Distribution", (), {"name": name, "version": version})()
        monkeypatch.setattr(python_packages.metadata, "distributions", lambda: found.values())

    return change


def test_a_missing_package_fails_by_the_extra_that_names_it(installed):
    installed(trl=None)
    found = list(python_packages.check_packages(["train"]))
    assert found[0].level == "fail" and "not installed: trl" in found[0].found
    assert "speed_ray[train]" in found[0].advice
    assert [each.level for each in python_packages.check_packages([])] == ["ok"]


def test_another_ray_fails(installed):
    installed(ray="2.59.0")
    [found, _] = python_packages.check_packages([])
    assert found.level == "fail" and "ray 2.59.0 (wanted: 2.60.0)" in found.found


def test_another_version_than_pinned_is_a_warning(installed):
    installed(orjson="0.1")
    [found] = python_packages.check_packages([])
    assert found.level == "warn" and "orjson 0.1 (pinned: " in found.found


def test_another_python_fails(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 12, 1))
    assert python_packages.check_python().level == "fail"
