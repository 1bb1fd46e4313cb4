"""CONTRIBUTING.md names commands, benchmarks and files that there are, and the census's bounds."""

import re

from benchmarks.__main__ import ALL
from tests.helpers import census
from tests.helpers.paths import ROOT

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    named = set(re.findall(r"\bmake ([a-z]+)(?=[`\n])", PAGE))
    assert "check" in named and named <= targets, named - targets


def test_every_benchmark_exists() -> None:
    cells = re.findall(r"^\|[^|]+\|(.+)\|$", PAGE, re.M)
    named = {name for cell in cells for name in re.findall(r"`(?:benchmarks )?([a-z]+)`", cell)}
    assert "pool" in named and named <= set(ALL), named - set(ALL)


def test_every_path_exists() -> None:
    paths = set(re.findall(r"`((?:\.|[\w]+/)[\w./-]+)`", PAGE)) | set(re.findall(r"\]\(([\w./]+)\)", PAGE))
    assert "tests/faults" in paths
    missing = [path for path in paths - {".venv"} if not (ROOT / path).exists()]
    assert not missing, missing


def test_the_bounds_are_those_of_the_census() -> None:
    section = PAGE.split("## Size\n")[1].split("\n## ")[0]
    bounds = {f"{count.bound:,}" for count in census.counts() if count.bound}
    assert set(re.findall(r"\b\d[\d,]*\b", section)) == bounds
