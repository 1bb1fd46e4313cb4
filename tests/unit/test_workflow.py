"""GitHub runs the script that every other CI runs, and no pull request can write to the repository by it."""

import os
from typing import Any

import yaml

from tests.helpers.paths import ROOT

WORKFLOW: dict[Any, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))


def test_the_last_step_is_the_script_of_ci() -> None:
    (job,) = WORKFLOW["jobs"].values()
    assert job["steps"][-1]["run"] == ".ci/run"
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_it_may_only_read() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert not any("permissions" in job for job in WORKFLOW["jobs"].values())
