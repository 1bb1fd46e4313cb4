"""Critique: the teacher criticises candidates of each list and revises them, for the revisor's SFT (SPEED, 3.2)."""

import random

from speed_ray import kinds
from speed_ray.engines.base import Reply, Request
from speed_ray.executor.stage import Stage
from speed_ray.prompts.parse import critique_schema, parse_critique
from speed_ray.records import REVISION, CandidatesRow, Rejected, RevisionRow, seed_of
from speed_ray.stages.example_request import PROPOSE, from_json, id_columns, prompt_context, sample_slots, to_json
from speed_ray.storage.planned_rows import PlannedRow
from speed_ray.storage.run import CANDIDATES, REVISIONS, Run
from speed_ray.storage.shard_plan import Plan


class Critique(Stage[CandidatesRow, RevisionRow]):
    """Candidates -> remarks on one of them and its revision, with the prompt that the revisor will be asked."""

    name, key, record_schema = REVISIONS, "critique", REVISION

    def plan(self, run: Run) -> Plan:
        """Plan `critique.candidates` revisions for each list of candidates."""
        variants = [f"critique {number}" for number in range(self.recipe.critique.candidates)]
        return self.plan_per_record(run.artifact(CANDIDATES), variants)

    def request(self, row: PlannedRow[CandidatesRow]) -> Request | None:
        """Render the critique prompt for a random candidate, each variant another; none where the list is shorter."""
        candidates, number = row.parent["candidates"], int(row.variant.split()[-1])
        if number >= len(candidates):
            return None
        shuffled = random.Random(seed_of(self.recipe.seed, row.parent["id"], "candidates"))
        example = shuffled.sample(candidates, len(candidates))[number]
        kind, topic, task = kinds.load_kind(row.parent["kind"]), row.parent["topic"], row.parent["task"]
        slots, language, _ = sample_slots(self.recipe, kind, row.parent["row_id"], PROPOSE)
        rng = random.Random(seed_of(self.recipe.seed, row.row_id, "critique"))
        messages = self.prompts.critique(kind, slots, topic, task, language, example, rng)
        context = prompt_context(self.key, kind, topic, task, slots, language)
        context |= {"example": example, "fields": from_json(example)}
        return self.make_request(row.row_id, messages, critique_schema(kind), context)

    def parse(self, row: PlannedRow[CandidatesRow], request: Request, reply: Reply) -> list[RevisionRow]:
        """Parse remarks and revision, and pair the revision with the revisor's prompt."""
        context, kind = request.context, kinds.load_kind(row.parent["kind"])
        remarks, revision = parse_critique(
            reply.samples[0].text, kind, context["slots"], context["language"], request.messages
        )
        example, topic, task = context["example"], row.parent["topic"], row.parent["task"]
        return [
            {
                **id_columns(row),
                "messages": self.prompts.revise(kind, topic, task, context["language"], example),
                "example": example,
                "reply": to_json(revision),
                "relevance": remarks["relevance"],
                "completeness": remarks["completeness"],
                "accuracy": remarks["accuracy"],
                "model": self.engine.model,
            }
        ]

    def without_model(self, row: PlannedRow[CandidatesRow]) -> list[RevisionRow]:
        """Reject the variant of a list that has fewer candidates."""
        raise Rejected("no_candidate", "the list has fewer candidates than are to be criticised")
