"""Synthesize: the generator writes one example for every planned prompt, its slots drawn from the row's own seed.

The prompts are about tasks or, in a run of documents, about passages, of which each is one side of its examples.
"""

from collections.abc import Iterator
from typing import Any

from speed_ray import kinds
from speed_ray.engines.base import Reply, Request
from speed_ray.prompts.render import A_PASSAGE
from speed_ray.records import EXAMPLE, ExampleRow, NeighbourRow, TaskRow
from speed_ray.stages.example_request import SYNTHESIZE, ExampleStage, id_columns, parse_sample, to_columns
from speed_ray.storage.fingerprint import model_label
from speed_ray.storage.planned_rows import PlannedRow
from speed_ray.storage.run import EXAMPLES, Run
from speed_ray.storage.shard_plan import Plan


class Synthesize(ExampleStage[ExampleRow]):
    """Task or passage -> example."""

    name, key, record_schema, role = EXAMPLES, "synthesize", EXAMPLE, "generator"
    seed_purpose = SYNTHESIZE

    def plan(self, run: Run) -> Plan:
        """Plan `synthesize.examples` prompts, or `synthesize.per_passage` about each passage."""
        wanted = self.recipe.synthesize
        return self.plan_prompts(run, wanted.examples, wanted.per_passage)

    def parse(self, row: PlannedRow[Any], request: Request, reply: Reply) -> list[ExampleRow]:
        """Parse the reply into an example."""
        about, kind = self.as_of_task(row), kinds.load_kind(self.kind_of(row))
        fields = parse_sample(request, reply.samples[0])
        if "passage" in request.context:
            kind = kinds.load_grounded(kind.name)
            fields |= {str(kind.passage): request.context["passage"]}
        return [
            {
                **id_columns(about),
                "language": request.context["language"],
                "instruction": kind.instruction or about.parent["task"],
                **to_columns(kind, fields),
                "model": model_label(self.engine),
            }
        ]

    def shortest_requests(self) -> Iterator[Request]:
        """Render eight prompts of each kind about a task of two words: those about real tasks are longer.

        About passages, eight that are as long as the corpus may have them, as are the neighbours shown beside.
        """
        if self.recipe.corpus and self.recipe.is_grounded:
            text = "the " * self.recipe.corpus.tokens  # a token each, or more
            neighbour = text if self.recipe.synthesize.contrast else ""
            passage: NeighbourRow = {**A_PASSAGE, "text": text, "neighbour_id": "", "neighbour": neighbour}
            for number in range(8):
                yield self.render(PlannedRow(str(number), passage, str(number)))
            return
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
                yield self.render(PlannedRow(str(number), {**task, "kind": kind}, ""))
