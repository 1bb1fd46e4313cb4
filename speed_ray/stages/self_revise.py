"""Self-revise: the revisor revises what the teacher revised; pair_revisions.py pairs the two for the revisor's DPO."""

from speed_ray import kinds
from speed_ray.engines.base import Reply, Request
from speed_ray.executor.stage import Stage
from speed_ray.records import SFT_EXAMPLE, RevisionRow, SftRow
from speed_ray.stages.example_request import (
    PROPOSE,
    from_json,
    id_columns,
    parse_by_context,
    prompt_context,
    sample_slots,
    to_json,
)
from speed_ray.storage.fingerprint import model_label
from speed_ray.storage.planned_rows import PlannedRow
from speed_ray.storage.run import OWN_REVISIONS, REVISIONS, Run
from speed_ray.storage.shard_plan import Plan


class SelfRevise(Stage[RevisionRow, SftRow]):
    """The teacher's revision -> the revisor's own, asked with the very prompt that it was trained on."""

    name, key, record_schema, role = OWN_REVISIONS, "revise", SFT_EXAMPLE, "generator"

    def plan(self, run: Run) -> Plan:
        """Plan one prompt to the revisor for each example that the teacher revised."""
        return self.plan_per_record(run.artifact(REVISIONS), ("own",))

    def request(self, row: PlannedRow[RevisionRow]) -> Request:
        """Return the prompt that is stored with the teacher's revision."""
        kind = kinds.load_kind(row.parent["kind"])
        # The candidate that was revised has the id of the list it is from, and that of the prompt it answers.
        slots, language, _ = sample_slots(self.recipe, kind, row.parent["parent_id"], PROPOSE)
        context = prompt_context(self.key, kind, row.parent["topic"], "", slots, language)
        context["fields"] = from_json(row.parent["example"])
        return self.make_request(row.row_id, row.parent["messages"], kind.schema, context)

    def parse(self, row: PlannedRow[RevisionRow], request: Request, reply: Reply) -> list[SftRow]:
        """Parse the reply into an example and pair it with its prompt."""
        answer = to_json(parse_by_context(request, reply.samples[0].text))
        return [{**id_columns(row), "messages": request.messages, "reply": answer, "model": model_label(self.engine)}]
