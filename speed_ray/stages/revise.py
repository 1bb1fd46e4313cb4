"""Revise: the revisor revises each example once and keeps it, with the reason, where its revision is unfit.

A revised example replaces the one it was made from, under the same id. Shard k needs only shard k of the examples, so
that revising begins while they are still being written.
"""

from speed_ray import kinds
from speed_ray.engines.base import Reply, Request
from speed_ray.executor.stage import Stage, plan_identity
from speed_ray.records import REVISED, ExampleRow, Rejected, RevisedRow
from speed_ray.stages.example_request import (
    SYNTHESIZE,
    from_columns,
    parse_by_context,
    prompt_context,
    sample_slots,
    to_columns,
    to_json,
)
from speed_ray.storage.fingerprint import model_label
from speed_ray.storage.planned_rows import UPSTREAM_REJECTED, PlannedRow
from speed_ray.storage.run import EXAMPLES, REVISED_EXAMPLES, Run
from speed_ray.storage.shard_plan import Plan


class Revise(Stage[ExampleRow, RevisedRow]):
    """Example -> the same example, improved, or as it was."""

    name, key, record_schema, role = REVISED_EXAMPLES, "revise", REVISED, "generator"

    def plan(self, run: Run, examples: Plan | None = None) -> Plan:
        """Plan the rows and shards of the examples' plan: `examples`, or the one that the run holds already."""
        source = examples or run.artifact(EXAMPLES).plan()
        assert source is not None, "revising follows a plan of examples"
        return Plan(
            self.name, source.rows, source.shard_rows, source.stage, identity=self.identity(plan_identity(source))
        )

    def request(self, row: PlannedRow[ExampleRow]) -> Request | None:
        """Render the revision prompt; none where the example was rejected."""
        if row.variant == UPSTREAM_REJECTED:
            return None
        example, kind = row.parent, kinds.load_kind(row.parent["kind"])
        slots, language, _ = sample_slots(self.recipe, kind, example["row_id"], SYNTHESIZE)
        topic, task, fields = example["topic"], example["instruction"], from_columns(kind, example)
        messages = self.prompts.revise(kind, topic, task, language, to_json(fields))
        context = prompt_context(self.key, kind, topic, task, slots, language)
        context["fields"] = fields
        return self.make_request(row.row_id, messages, kind.schema, context)

    def parse(self, row: PlannedRow[ExampleRow], request: Request, reply: Reply) -> list[RevisedRow]:
        """Parse the revision. Raises Rejected for one that is the example as it was."""
        fields = parse_by_context(request, reply.samples[0].text)
        if fields == request.context["fields"]:
            raise Rejected("unchanged", "the revision is the example as it was")
        columns = to_columns(kinds.load_kind(row.parent["kind"]), fields)
        model = model_label(self.engine)
        return [{**row.parent, **columns, "model": model, "revised": True, "kept_because": ""}]

    def without_model(self, row: PlannedRow[ExampleRow]) -> list[RevisedRow]:
        """Reject the row of an example that was rejected."""
        raise Rejected(UPSTREAM_REJECTED, "the example that was to be revised was rejected itself")

    def fallback(self, row: PlannedRow[ExampleRow], rejected: Rejected) -> list[RevisedRow]:
        """Return the example as it was, with the reason why its revision was not taken."""
        return [{**row.parent, "revised": False, "kept_because": rejected.reason}]
