"""The teacher writes a small set of examples: the lessons from which the junior generator learns (SPEED, 3.1)."""

from speed_ray import kinds
from speed_ray.engines.engine import Reply, Request
from speed_ray.inputs import PlannedRow
from speed_ray.recipe import Recipe
from speed_ray.records import LESSON, Row
from speed_ray.replies import example_fields
from speed_ray.run import DRAFTS, Run
from speed_ray.shards import Plan
from speed_ray.stage import Stage
from speed_ray.stages.writing import DRAFT, as_reply, lineage, plan_of, request_of


def plan(run: Run, recipe: Recipe) -> Plan:
    """`draft.examples` prompts for the teacher."""
    return plan_of(run, recipe, DRAFTS, recipe.draft.examples, recipe.teacher, recipe.draft)


def stage(recipe: Recipe) -> Stage:
    """Task -> lesson: the prompt as the junior will be asked, and the reply that it is to give."""

    def parse(row: PlannedRow, request: Request | None, reply: Reply | None) -> list[Row]:
        assert request is not None and reply is not None
        facts, kind = request.facts, kinds.load(row.parent["kind"])
        fields = example_fields(reply.samples[0].text, kind, facts["slots"], facts["language"])
        lesson = {"messages": request.messages, "reply": as_reply(fields), "model": recipe.teacher.model}
        return [{**lineage(row), **lesson}]

    ask = request_of(recipe, recipe.draft, DRAFT)
    return Stage(DRAFTS, LESSON, "teacher", recipe.teacher, recipe.draft, recipe.seed, ask, parse)
