"""A benchmark without its rival has no figure, and leaves the one that RESULTS.md has."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import dedup, report, rivals
from benchmarks.__main__ import main

OURS = {"contender": "speed_ray", "documents/s": 1000.0, "recall": 1.0, "precision": 1.0}


def test_dedup_without_datatrove_has_no_figure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dedup, "curated", lambda count: OURS)
    monkeypatch.setattr(rivals, "are_installed", lambda *packages: False)
    monkeypatch.setattr(sys, "argv", ["dedup", "--json"])
    dedup.main()
    said = capsys.readouterr()
    result = json.loads(said.out)
    assert (result["figure"], result["met"], result["details"]) == (None, None, [OURS])
    assert "make rivals" in said.err


def test_a_missing_figure_is_no_goal_missed(capsys: pytest.CaptureFixture[str]) -> None:
    report.emit(report.Result("dedup", None, ">= 20", "documents/s", None, [OURS]), as_json=False)
    said = capsys.readouterr().out
    assert "no figure" in said and "NOT met" not in said


@pytest.mark.parametrize(("bound", "met"), [(">= 0.97", True), ("<= 0.5", False), ("> 0.97", False)])
def test_a_figure_is_held_against_its_bound(bound: str, met: bool, capsys: pytest.CaptureFixture[str]) -> None:
    report.emit_against(bound, "dpo", 0.97, "steps/s", [], as_json=True)
    assert json.loads(capsys.readouterr().out)["met"] is met


def test_results_keep_a_section_without_a_new_figure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page = tmp_path / "RESULTS.md"
    page.write_text("# Results\n\n## dedup\n\n**37.000** documents/s\n")
    missing = json.dumps(
        {"benchmark": "dedup", "figure": None, "met": None, "goal": ">= 20", "unit": "", "details": []}
    )
    monkeypatch.setattr("benchmarks.__main__.RESULTS", page)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, stdout=missing))
    monkeypatch.setattr(sys, "argv", ["benchmarks", "dedup"])
    before = page.read_text()
    main()
    assert page.read_text() == before


def test_a_rival_is_found_in_its_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(rivals, "FOLDER", tmp_path)
    assert not rivals.are_installed("a_rival_of_this_test")
    (tmp_path / "a_rival_of_this_test.py").write_text("VALUE = 7\n")
    assert rivals.are_installed("a_rival_of_this_test")
    command = [sys.executable, "-c", "import a_rival_of_this_test; print(a_rival_of_this_test.VALUE)"]
    assert subprocess.run(command, env=rivals.environment(), capture_output=True, text=True).stdout == "7\n"
