"""The teacher writes a small set of examples: the lessons from which the junior generator learns (SPEED, 3.1)."""

from speed_ray import kinds
from speed_ray.engines.base import Reply, Request
from speed_ray.executor.stage import Stage
from speed_ray.prompts.parse import parse_example
from speed_ray.recipes.schema import Recipe
from speed_ray.records import SFT_EXAMPLE, Row
from speed_ray.stages.example_request import DRAFT, id_columns, plan_of, request_of, to_json
from speed_ray.storage.planned_rows import PlannedRow
from speed_ray.storage.run import DRAFTS, Run
from speed_ray.storage.shards import Plan


def plan(run: Run, recipe: Recipe) -> Plan:
    """`draft.examples` prompts for the teacher."""
    return plan_of(run, recipe, DRAFTS, recipe.draft.examples, recipe.teacher, recipe.draft)


def stage(recipe: Recipe) -> Stage:
    """Task -> lesson: the prompt as the junior will be asked, and the reply that it is to give."""

    def parse(row: PlannedRow, request: Request | None, reply: Reply | None) -> list[Row]:
        assert request is not None and reply is not None
        facts, kind = request.facts, kinds.load_kind(row.parent["kind"])
        fields = parse_example(reply.samples[0].text, kind, facts["slots"], facts["language"])
        lesson = {"messages": request.messages, "reply": to_json(fields), "model": recipe.teacher.model}
        return [{**id_columns(row), **lesson}]

    ask = request_of(recipe, recipe.draft, DRAFT)
    return Stage(DRAFTS, SFT_EXAMPLE, "teacher", recipe.teacher, recipe.draft, recipe.seed, ask, parse)
