"""The revisor goes over each example once (single pass), and keeps it, saying why, when its revision is not fit.

A revised example stands in for the one it was made from, under the same id. Shard k needs only shard k of the
examples, so that revising begins while they are still being written.
"""

from speed_ray import kinds
from speed_ray.engines.base import Reply, Request
from speed_ray.executor.stage import Stage, upstream_identity
from speed_ray.prompts.parse import parse_example
from speed_ray.prompts.render import Prompts
from speed_ray.recipes.schema import EngineConfig, Recipe
from speed_ray.records import REVISED, Rejected, Row
from speed_ray.stages.example_request import (
    SYNTHESIZE,
    from_columns,
    prompt_context,
    sample_slots,
    to_columns,
    to_json,
)
from speed_ray.storage.fingerprint import model_label
from speed_ray.storage.planned_rows import UPSTREAM_REJECTED, PlannedRow
from speed_ray.storage.run import EXAMPLES, REVISED_EXAMPLES
from speed_ray.storage.shards import Plan


def plan(examples: Plan, recipe: Recipe, engine: EngineConfig) -> Plan:
    """The rows and shards of the examples' plan, which is all that must be there of them."""
    return Plan(
        stage=REVISED_EXAMPLES,
        rows=examples.rows,
        shard_rows=examples.shard_rows,
        input=EXAMPLES,
        identity=upstream_identity(recipe, examples, engine, recipe.revise),
    )


def stage(recipe: Recipe, engine: EngineConfig) -> Stage:
    """Example -> the same example, better, or as it was."""
    prompts = Prompts(recipe.prompts)
    sampling = recipe.revise.sampling.model_dump()

    def request(row: PlannedRow) -> Request | None:
        if row.variant == UPSTREAM_REJECTED:
            return None
        example, kind = row.parent, kinds.load_kind(row.parent["kind"])
        slots, language, _ = sample_slots(recipe, kind, example["row_id"], SYNTHESIZE)
        topic, task, fields = example["topic"], example["instruction"], from_columns(kind, example)
        facts = prompt_context("revise", kind, topic, task, slots, language)
        return Request(
            row_id=row.row_id,
            messages=prompts.revise(kind, topic, task, language, to_json(fields)),
            **sampling,
            schema=kind.schema,
            facts={**facts, "fields": fields},
        )

    def parse(row: PlannedRow, request: Request | None, reply: Reply | None) -> list[Row]:
        if request is None or reply is None:
            raise Rejected(UPSTREAM_REJECTED, "the example that was to be revised was rejected itself")
        kind = kinds.load_kind(row.parent["kind"])
        facts = request.facts
        fields = parse_example(reply.samples[0].text, kind, facts["slots"], facts["language"])
        if fields == facts["fields"]:
            raise Rejected("unchanged", "the revision is the example as it was")
        return [
            {
                **row.parent,
                **to_columns(kind, fields),
                "model": model_label(engine),
                "revised": True,
                "kept_because": "",
            }
        ]

    def keep(row: PlannedRow, rejected: Rejected) -> list[Row]:
        return [{**row.parent, "revised": False, "kept_because": rejected.reason}]

    return Stage(REVISED_EXAMPLES, REVISED, "generator", engine, recipe.revise, recipe.seed, request, parse, keep)
