"""The revisor revises, in its own way, what the teacher revised: what its DPO tells it to do less of."""

from speed_ray import kinds
from speed_ray.engines.base import Reply, Request
from speed_ray.executor.stage import Stage, plan_per_record
from speed_ray.prompts.parse import parse_example
from speed_ray.recipes.schema import EngineConfig, Recipe
from speed_ray.records import SFT_EXAMPLE, Row
from speed_ray.stages.example_request import PROPOSE, from_json, id_columns, prompt_context, sample_slots, to_json
from speed_ray.storage.fingerprint import model_label
from speed_ray.storage.planned_rows import PlannedRow
from speed_ray.storage.run import OWN_REVISIONS, REVISIONS, Run
from speed_ray.storage.shards import Plan


def plan(run: Run, recipe: Recipe, engine: EngineConfig) -> Plan:
    """One revision by an engine, the revisor, for each of the teacher's."""
    return plan_per_record(recipe, run.artifact(REVISIONS), OWN_REVISIONS, ("own",), engine, recipe.revise)


def stage(recipe: Recipe, engine: EngineConfig) -> Stage:
    """The teacher's revision -> another by the revisor, asked with the very prompt that it was trained on."""
    sampling = recipe.revise.sampling.model_dump()

    def request(row: PlannedRow) -> Request:
        kind = kinds.load_kind(row.parent["kind"])
        # The candidate that was revised has the id of the list it is from, and that of the prompt it answers.
        slots, language, _ = sample_slots(recipe, kind, row.parent["parent_id"], PROPOSE)
        facts = prompt_context("revise", kind, row.parent["topic"], "", slots, language)
        return Request(
            row_id=row.row_id,
            messages=row.parent["messages"],
            **sampling,
            schema=kind.schema,
            facts={**facts, "fields": from_json(row.parent["example"])},
        )

    def parse(row: PlannedRow, request: Request | None, reply: Reply | None) -> list[Row]:
        assert request is not None and reply is not None
        facts, kind = request.facts, kinds.load_kind(row.parent["kind"])
        fields = parse_example(reply.samples[0].text, kind, facts["slots"], facts["language"])
        return [
            {**id_columns(row), "messages": request.messages, "reply": to_json(fields), "model": model_label(engine)}
        ]

    return Stage(OWN_REVISIONS, SFT_EXAMPLE, "generator", engine, recipe.revise, recipe.seed, request, parse)
