"""Draft: the teacher writes a small set of examples, on which the junior generator is trained (SPEED, 3.1)."""

from typing import Any

from speed_ray.engines.base import Reply, Request
from speed_ray.recipes.engine_settings import continues_lines
from speed_ray.records import SFT_EXAMPLE, SftRow
from speed_ray.stages.example_request import DRAFT, ExampleStage, id_columns, parse_sample, to_reply
from speed_ray.storage.planned_rows import PlannedRow
from speed_ray.storage.run import DRAFTS, Run
from speed_ray.storage.shard_plan import Plan


class Draft(ExampleStage[SftRow]):
    """Task or passage -> SFT example: the prompt as the junior will be asked, and the reply that it learns to give."""

    name, key, record_schema = DRAFTS, "draft", SFT_EXAMPLE
    seed_purpose, is_learnt = DRAFT, True

    def plan(self, run: Run) -> Plan:
        """Plan `draft.examples` prompts."""
        decides = {"lines": continues_lines(self.recipe.generator)} if self.recipe.is_grounded else {}
        return self.plan_prompts(run, self.recipe.draft.examples, **decides)

    def parse(self, row: PlannedRow[Any], request: Request, reply: Reply) -> list[SftRow]:
        """Parse the reply into an example and pair it with its prompt."""
        fields, asked = parse_sample(request, reply.samples[0]), self.as_generator_is_asked(row, request)
        return [
            {
                **id_columns(self.as_of_task(row)),
                "messages": asked.messages,
                "reply": to_reply(fields, asked.schema is None),
                "model": self.engine.model,
            }
        ]
