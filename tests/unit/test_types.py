"""Run the type check on small faulty stages: it refuses a misspelt column of a row and a stage without `parse`."""

import subprocess
import sys
from pathlib import Path

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


def refusals(folder: Path, program: str) -> str:
    path = folder / "program.py"
    path.write_text(program)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-error-summary", str(path)], cwd=ROOT, capture_output=True, text=True
    )
    return checked.stdout + checked.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("right", "wrong", "refusal"),
    [
        ('row.parent["topic"]', 'row.parent["typo"]', 'TypedDict "TopicRow" has no key "typo"'),
        (
            "def parse(",
            "def parse_reply(",
            'Cannot instantiate abstract class "Summarize" with abstract attribute "parse"',
        ),
    ],
)
def test_a_mistake_in_a_stage_is_refused(tmp_path: Path, right: str, wrong: str, refusal: str) -> None:
    assert right in STAGE
    assert refusals(tmp_path, STAGE) == ""
    assert refusal in refusals(tmp_path, STAGE.replace(right, wrong))
