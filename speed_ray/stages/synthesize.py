"""Synthesize: the generator writes one example for every planned prompt, its slots drawn from the row's own seed."""

from collections.abc import Iterator

from speed_ray import kinds
from speed_ray.engines.base import Reply, Request
from speed_ray.records import EXAMPLE, ExampleRow, TaskRow
from speed_ray.stages.example_request import SYNTHESIZE, ExampleStage, id_columns, parse_by_context, to_columns
from speed_ray.storage.fingerprint import model_label
from speed_ray.storage.planned_rows import PlannedRow
from speed_ray.storage.run import EXAMPLES, Run
from speed_ray.storage.shard_plan import Plan


class Synthesize(ExampleStage[ExampleRow]):
    """Task -> example."""

    name, key, record_schema, role = EXAMPLES, "synthesize", EXAMPLE, "generator"
    seed_purpose = SYNTHESIZE

    def plan(self, run: Run) -> Plan:
        """Plan `synthesize.examples` prompts."""
        return self.plan_prompts(run, self.recipe.synthesize.examples)

    def parse(self, row: PlannedRow[TaskRow], request: Request, reply: Reply) -> list[ExampleRow]:
        """Parse the reply into an example."""
        kind, fields = kinds.load_kind(row.parent["kind"]), parse_by_context(request, reply.samples[0].text)
        return [
            {
                **id_columns(row),
                "language": request.context["language"],
                "instruction": kind.instruction or row.parent["task"],
                **to_columns(kind, fields),
                "model": model_label(self.engine),
            }
        ]

    def shortest_requests(self) -> Iterator[Request]:
        """Render eight prompts of each kind about a task of two words: those about real tasks are longer."""
        task: TaskRow = {
            "id": "",
            "row_id": "",
            "parent_id": "",
            "kind": "",
            "topic": "a topic",
            "task": "a task",
            "model": "",
        }
        for kind, weight in self.recipe.mix.items():
            for number in range(8 if weight else 0):
                yield self.request(PlannedRow(str(number), {**task, "kind": kind}, ""))
