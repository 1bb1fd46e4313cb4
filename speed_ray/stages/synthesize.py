"""The generator writes one example for every planned prompt: a task, its slots drawn from the row's own seed."""

import random

from speed_ray import kinds
from speed_ray.engines.engine import Reply, Request
from speed_ray.errors import UserError
from speed_ray.inputs import PlannedRow
from speed_ray.prompts.render import Prompts
from speed_ray.recipe import Recipe
from speed_ray.records import EXAMPLE, Row, seed_of
from speed_ray.replies import example_fields
from speed_ray.run import EXAMPLES, TASKS, Run
from speed_ray.shards import Plan
from speed_ray.stage import Stage, identity


def plan(run: Run, recipe: Recipe) -> Plan:
    """`synthesize.examples` prompts; kinds by the mix, tasks in order, a new variant each time around."""
    tasks = run.artifact(TASKS)
    decides = identity(recipe, tasks, recipe.generator, recipe.synthesize)
    manifest = tasks.manifest()
    assert manifest is not None
    mix = {kind: weight for kind, weight in sorted(recipe.mix.items()) if weight}
    without = [kind for kind in mix if not manifest["counts"]["kinds"].get(kind)]
    if without:
        raise UserError(
            f"mix gives weight to {', '.join(without)}, but {tasks.where} holds no such task.\n"
            f"See why with: speed-ray show {run.uri} proposed_tasks --rejects --kind {without[0]}"
        )
    return Plan(
        stage=EXAMPLES,
        rows=recipe.synthesize.examples,
        shard_rows=recipe.synthesize.shard_rows,
        input=TASKS,
        mix=mix,
        identity=decides,
    )


def stage(recipe: Recipe) -> Stage:
    """Task -> example."""
    prompts = Prompts(recipe.prompts)
    sampling = recipe.synthesize.sampling

    def request(row: PlannedRow) -> Request:
        kind = kinds.load(row.parent["kind"])
        rng = random.Random(seed_of(recipe.seed, row.row_id, "slots"))
        slots = kind.slots(rng) | recipe.slots.get(kind.name, {})
        language = rng.choices(list(recipe.languages), list(recipe.languages.values()))[0]
        topic, task = row.parent["topic"], row.parent["task"]
        return Request(
            row_id=row.row_id,
            messages=prompts.synthesize(kind, slots, topic, task, language, rng),
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            schema=kind.schema,
            facts={
                "stage": "synthesize",
                "kind": kind.name,
                "topic": topic,
                "task": task,
                "slots": slots,
                "language": language,
            },
        )

    def parse(row: PlannedRow, request: Request | None, reply: Reply | None) -> list[Row]:
        assert request is not None and reply is not None
        kind = kinds.load(row.parent["kind"])
        fields = example_fields(reply.samples[0].text, kind, request.facts["slots"], request.facts["language"])
        return [
            {
                "id": row.row_id,
                "row_id": row.row_id,
                "parent_id": row.parent["id"],
                "kind": kind.name,
                "topic": row.parent["topic"],
                "language": request.facts["language"],
                "instruction": kind.instruction or row.parent["task"],
                "query": fields[kind.query],
                "positive": fields[kind.positive],
                "negatives": [fields[kind.negative]] if kind.negative else [],
                "model": recipe.generator.model,
            }
        ]

    return Stage(EXAMPLES, EXAMPLE, "generator", recipe.generator, recipe.synthesize, recipe.seed, request, parse)
