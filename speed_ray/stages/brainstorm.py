"""The teacher lists one-sentence tasks for every topic and kind. Every proposal is kept here; select.py chooses."""

import random

from speed_ray import kinds
from speed_ray.engines.base import Reply, Request
from speed_ray.executor.stage import Stage, stage_identity
from speed_ray.prompts.parse import parse_tasks, tasks_schema
from speed_ray.prompts.render import Prompts
from speed_ray.recipes.schema import Recipe
from speed_ray.records import TASK, Row, seed_of
from speed_ray.storage.planned_rows import PlannedRow
from speed_ray.storage.run import PROPOSED_TASKS, TOPICS, Run
from speed_ray.storage.shards import Plan


def plan(run: Run, recipe: Recipe) -> Plan:
    """One prompt for each topic and kind in the mix, in the order of the topics."""
    topics = run.artifact(TOPICS)
    decides = stage_identity(recipe, topics, recipe.teacher, recipe.brainstorm)
    manifest = topics.manifest()
    assert manifest is not None
    variants = tuple(sorted(kind for kind, weight in recipe.mix.items() if weight))
    return Plan(
        stage=PROPOSED_TASKS,
        rows=manifest["counts"]["records"] * len(variants),
        shard_rows=recipe.brainstorm.shard_rows,
        input=TOPICS,
        variants=variants,
        identity={**decides, "ask": recipe.brainstorm.ask},
    )


def stage(recipe: Recipe) -> Stage:
    """Topic x kind -> about `ask` proposed tasks."""
    prompts = Prompts(recipe.prompts)
    sampling, ask = recipe.brainstorm.sampling, recipe.brainstorm.ask
    schema = tasks_schema(ask)

    def request(row: PlannedRow) -> Request | None:
        kind = kinds.load_kind(row.variant)
        if kind.instruction is not None:
            return None
        rng = random.Random(seed_of(recipe.seed, row.row_id, "slots"))
        language = rng.choices(list(recipe.languages), list(recipe.languages.values()))[0]
        topic = row.parent["topic"]
        return Request(
            row_id=row.row_id,
            messages=prompts.brainstorm(kind, topic, ask, language, rng),
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            schema=schema,
            facts={"stage": "brainstorm", "kind": kind.name, "topic": topic, "ask": ask, "language": language},
        )

    def parse(row: PlannedRow, request: Request | None, reply: Reply | None) -> list[Row]:
        if reply is None:
            fixed = kinds.load_kind(row.variant).instruction
            return [_task(row, 0, str(fixed), "none")]
        return [
            _task(row, i, task, recipe.teacher.model) for i, task in enumerate(parse_tasks(reply.samples[0].text, ask))
        ]

    return Stage(PROPOSED_TASKS, TASK, "teacher", recipe.teacher, recipe.brainstorm, recipe.seed, request, parse)


def _task(row: PlannedRow, index: int, task: str, model: str) -> Row:
    return {
        "id": f"{row.row_id}-{index}",
        "row_id": row.row_id,
        "parent_id": row.parent["id"],
        "kind": row.variant,
        "topic": row.parent["topic"],
        "task": task,
        "model": model,
    }
