"""Run the type check on small faulty stages: it refuses a misspelt column of a row and a stage without `parse`."""

import subprocess
import sys

import pytest

from tests.helpers.paths import ROOT

STAGE = """
from speed_ray.engines.base import Reply, Request
from speed_ray.executor.stage import Stage
from speed_ray.recipes.schema import Recipe
from speed_ray.records import TASK, TaskRow, TopicRow
from speed_ray.storage.planned_rows import PlannedRow
from speed_ray.storage.run import TASKS, Run
from speed_ray.storage.shard_plan import Plan


class Summarize(Stage[TopicRow, TaskRow]):
    name, key, record_schema = TASKS, "brainstorm", TASK

    def plan(self, run: Run) -> Plan:
        return Plan(TASKS, 1, 1)

    def request(self, row: PlannedRow[TopicRow]) -> Request | None:
        return Request(row.row_id, [{"role": "user", "content": row.parent["topic"]}])

    def parse(self, row: PlannedRow[TopicRow], request: Request, reply: Reply) -> list[TaskRow]:
        return []


def make(recipe: Recipe) -> Summarize:
    return Summarize(recipe)
"""


MISTAKES = {
    "typo": ('row.parent["topic"]', 'row.parent["typo"]', 'TypedDict "TopicRow" has no key "typo"'),
    "no_parse": (
        "def parse(",
        "def parse_reply(",
        'Cannot instantiate abstract class "Summarize" with abstract attribute "parse"',
    ),
}


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Run mypy once over the stage and each mistake in it; return what it says."""
    folder = tmp_path_factory.mktemp("stages")
    (folder / "right.py").write_text(STAGE)
    for name, (right, wrong, _) in MISTAKES.items():
        assert right in STAGE
        (folder / f"{name}.py").write_text(STAGE.replace(right, wrong))
    command = [sys.executable, "-m", "mypy", "--no-error-summary", *map(str, folder.iterdir())]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return (checked.stdout + checked.stderr).splitlines()


@pytest.mark.slow
def test_a_stage_without_a_mistake_is_not_refused(refusals: list[str]) -> None:
    assert not [line for line in refusals if not any(f"{name}.py:" in line for name in MISTAKES)]


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_stage_is_refused(refusals: list[str], mistake: str) -> None:
    assert any(f"{mistake}.py:" in line and MISTAKES[mistake][2] in line for line in refusals)
