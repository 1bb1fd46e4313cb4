"""Draft: the teacher writes a small set of examples, on which the junior generator is trained (SPEED, 3.1)."""

from typing import Any

from speed_ray.engines.base import Reply, Request
from speed_ray.records import SFT_EXAMPLE, SftRow
from speed_ray.stages.example_request import DRAFT, ExampleStage, id_columns, parse_by_context, to_json
from speed_ray.storage.planned_rows import PlannedRow
from speed_ray.storage.run import DRAFTS, Run
from speed_ray.storage.shard_plan import Plan


class Draft(ExampleStage[SftRow]):
    """Task or passage -> SFT example: the prompt as the junior will be asked, and the reply that it learns to give."""

    name, key, record_schema = DRAFTS, "draft", SFT_EXAMPLE
    seed_purpose = DRAFT

    def plan(self, run: Run) -> Plan:
        """Plan `draft.examples` prompts."""
        return self.plan_prompts(run, self.recipe.draft.examples)

    def parse(self, row: PlannedRow[Any], request: Request, reply: Reply) -> list[SftRow]:
        """Parse the reply into an example and pair it with its prompt."""
        answer = to_json(parse_by_context(request, reply.samples[0].text))
        return [
            {
                **id_columns(self.as_of_task(row)),
                "messages": request.messages,
                "reply": answer,
                "model": self.engine.model,
            }
        ]
