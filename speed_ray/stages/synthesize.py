"""The generator writes one example for every planned prompt: a task, its slots drawn from the row's own seed."""

from collections.abc import Iterator

from speed_ray import kinds
from speed_ray.engines.base import Reply, Request
from speed_ray.executor.stage import Stage
from speed_ray.prompts.parse import parse_example
from speed_ray.recipes.schema import EngineConfig, Recipe
from speed_ray.records import EXAMPLE, Row
from speed_ray.stages.example_request import SYNTHESIZE, id_columns, plan_of, request_of, to_columns
from speed_ray.storage.fingerprint import model_label
from speed_ray.storage.planned_rows import PlannedRow
from speed_ray.storage.run import EXAMPLES, Run
from speed_ray.storage.shards import Plan


def plan(run: Run, recipe: Recipe, engine: EngineConfig | None = None) -> Plan:
    """`synthesize.examples` prompts for an engine, the recipe's generator by default."""
    settings = recipe.synthesize
    return plan_of(run, recipe, EXAMPLES, settings.examples, engine or recipe.generator, settings)


def shortest(recipe: Recipe) -> Iterator[Request]:
    """Prompts about tasks of a word or two, a few of each kind: real ones are longer."""
    ask = request_of(recipe, recipe.synthesize, SYNTHESIZE)
    for kind, weight in recipe.mix.items():
        parent = {"kind": kind, "topic": "a topic", "task": "a task"}
        yield from (ask(PlannedRow(str(number), parent, "")) for number in range(8 if weight else 0))


def stage(recipe: Recipe, engine: EngineConfig | None = None) -> Stage:
    """Task -> example."""
    engine = engine or recipe.generator

    def parse(row: PlannedRow, request: Request | None, reply: Reply | None) -> list[Row]:
        assert request is not None and reply is not None
        kind = kinds.load_kind(row.parent["kind"])
        fields = parse_example(reply.samples[0].text, kind, request.facts["slots"], request.facts["language"])
        return [
            {
                **id_columns(row),
                "language": request.facts["language"],
                "instruction": kind.instruction or row.parent["task"],
                **to_columns(kind, fields),
                "model": model_label(engine),
            }
        ]

    ask = request_of(recipe, recipe.synthesize, SYNTHESIZE)
    return Stage(EXAMPLES, EXAMPLE, "generator", engine, recipe.synthesize, recipe.seed, ask, parse)
