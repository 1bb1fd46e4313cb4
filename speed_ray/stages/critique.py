"""The teacher criticises candidates of each list and revises them: what the revisor learns (SPEED, 3.2)."""

import random

from speed_ray import kinds
from speed_ray.engines.base import Reply, Request
from speed_ray.executor.stage import Stage, plan_per_record
from speed_ray.prompts.parse import critique_schema, parse_critique
from speed_ray.prompts.render import Prompts
from speed_ray.recipes.schema import Recipe
from speed_ray.records import REVISION, Rejected, Row, seed_of
from speed_ray.stages.example_request import PROPOSE, from_json, id_columns, prompt_context, sample_slots, to_json
from speed_ray.storage.planned_rows import PlannedRow
from speed_ray.storage.run import CANDIDATES, REVISIONS, Run
from speed_ray.storage.shards import Plan


def plan(run: Run, recipe: Recipe) -> Plan:
    """As many revisions for each list of candidates as the recipe says."""
    variants = [f"critique {number}" for number in range(recipe.critique.candidates)]
    return plan_per_record(recipe, run.artifact(CANDIDATES), REVISIONS, variants, recipe.teacher, recipe.critique)


def stage(recipe: Recipe) -> Stage:
    """Candidates -> remarks on one, and its revision, with the prompt as the revisor will be asked for it.

    A row's variant tells which: the first is any of the list, the second any of the others, and so on.
    """
    prompts = Prompts(recipe.prompts)
    sampling = recipe.critique.sampling.model_dump()

    def request(row: PlannedRow) -> Request | None:
        candidates, number = row.parent["candidates"], int(row.variant.split()[-1])
        if number >= len(candidates):
            return None
        drawn = random.Random(seed_of(recipe.seed, row.parent["id"], "candidates"))
        example = drawn.sample(candidates, len(candidates))[number]
        kind, topic, task = kinds.load_kind(row.parent["kind"]), row.parent["topic"], row.parent["task"]
        slots, language, _ = sample_slots(recipe, kind, row.parent["row_id"], PROPOSE)
        rng = random.Random(seed_of(recipe.seed, row.row_id, "critique"))
        facts = prompt_context("critique", kind, topic, task, slots, language)
        return Request(
            row_id=row.row_id,
            messages=prompts.critique(kind, slots, topic, task, language, example, rng),
            **sampling,
            schema=critique_schema(kind),
            facts={**facts, "example": example, "fields": from_json(example)},
        )

    def parse(row: PlannedRow, request: Request | None, reply: Reply | None) -> list[Row]:
        if request is None or reply is None:
            raise Rejected("no_candidate", "the list has fewer candidates than are to be criticised")
        facts, kind = request.facts, kinds.load_kind(row.parent["kind"])
        remarks, revision = parse_critique(reply.samples[0].text, kind, facts["slots"], facts["language"])
        example, topic, task = facts["example"], row.parent["topic"], row.parent["task"]
        lesson = {
            "messages": prompts.revise(kind, topic, task, facts["language"], example),
            "example": example,
            "reply": to_json(revision),
            "model": recipe.teacher.model,
        }
        return [{**id_columns(row), **lesson, **remarks}]

    return Stage(REVISIONS, REVISION, "teacher", recipe.teacher, recipe.critique, recipe.seed, request, parse)
