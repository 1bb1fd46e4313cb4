"""The prompt of one example: the same thing whether a teacher drafts it, a junior proposes it or a senior writes it.

What varies in a prompt is drawn from the planned row's id, so it can be drawn again wherever it is needed: to check a
revision, or to tell a judge what was asked for.
"""

import json
import random
from collections.abc import Callable
from typing import NamedTuple

from speed_ray import kinds
from speed_ray.engines.base import Request
from speed_ray.errors import UserError
from speed_ray.executor.stage import stage_identity
from speed_ray.kinds.kind import Fields, Kind, Slots
from speed_ray.prompts.render import Prompts
from speed_ray.recipes.schema import EngineConfig, Recipe
from speed_ray.recipes.schema import StageSettings as StageConfig
from speed_ray.records import Row, seed_of
from speed_ray.storage.planned_rows import PlannedRow
from speed_ray.storage.run import TASKS, Run
from speed_ray.storage.shards import Plan

DRAFT, PROPOSE, SYNTHESIZE = "draft", "propose", "synthesize"
# Each draws its own, so that the same task is put otherwise to the junior than it was to the teacher.
PURPOSES = {DRAFT: "slots of draft", PROPOSE: "slots of propose", SYNTHESIZE: "slots"}


class SampledSlots(NamedTuple):
    """What varies in one prompt, and the generator in the state in which the guidelines are shuffled."""

    slots: Slots
    language: str
    rng: random.Random


def sample_slots(recipe: Recipe, kind: Kind, row_id: str, stage: str) -> SampledSlots:
    """Draw slots and language of the prompt `row_id` of one of the three stages: the same each time."""
    rng = random.Random(seed_of(recipe.seed, row_id, PURPOSES[stage]))
    slots = kind.slots(rng) | recipe.slots.get(kind.name, {})
    language = rng.choices(list(recipe.languages), list(recipe.languages.values()))[0]
    return SampledSlots(slots, language, rng)


def plan_of(
    run: Run,
    recipe: Recipe,
    artifact: str,
    rows: int,
    engine: EngineConfig,
    settings: StageConfig,
    **decides: int,
) -> Plan:
    """Plan so many prompts: kinds by the mix, tasks in order, a new variant each time around.

    `decides` is what else decides the rows. Raises UserError where the mix has a kind without a task.
    """
    tasks = run.artifact(TASKS)
    identified = stage_identity(recipe, tasks, engine, settings)
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
        stage=artifact,
        rows=rows,
        shard_rows=settings.shard_rows,
        input=TASKS,
        mix=mix,
        identity={**identified, **decides},
    )


def request_of(recipe: Recipe, settings: StageConfig, stage: str, n: int = 1) -> Callable[[PlannedRow], Request]:
    """Make the function that turns a planned row, a task, into the request for `n` examples of it."""
    prompts = Prompts(recipe.prompts)
    sampling = settings.sampling.model_dump()

    def request(row: PlannedRow) -> Request:
        kind = kinds.load_kind(row.parent["kind"])
        slots, language, rng = sample_slots(recipe, kind, row.row_id, stage)
        topic, task = row.parent["topic"], row.parent["task"]
        return Request(
            row_id=row.row_id,
            messages=prompts.synthesize(kind, slots, topic, task, language, rng),
            n=n,
            **sampling,
            schema=kind.schema,
            facts=prompt_context(stage, kind, topic, task, slots, language),
        )

    return request


def prompt_context(stage: str, kind: Kind, topic: str, task: str, slots: Slots, language: str) -> Row:
    """What a scripted engine is told of a prompt about one example."""
    return {
        "stage": stage,
        "kind": kind.name,
        "topic": topic,
        "task": task,
        "slots": slots,
        "language": language,
    }


def to_json(fields: Fields) -> str:
    """Write an example as the JSON text that a model learns: its fields in their kind's order, nothing escaped."""
    return json.dumps(fields, ensure_ascii=False)


def from_json(text: str) -> Fields:
    """Read back what `to_json` wrote."""
    fields: Fields = json.loads(text)
    return fields


def to_columns(kind: Kind, fields: Fields) -> Row:
    """The columns of an example that its fields become."""
    return {
        "query": fields[kind.query],
        "positive": fields[kind.positive],
        "negatives": [fields[kind.negative]] if kind.negative else [],
    }


def from_columns(kind: Kind, example: Row) -> Fields:
    """Write an example's columns back as the fields they came from, in the order of their kind."""
    texts = {kind.query: example["query"], kind.positive: example["positive"]}
    if kind.negative:
        texts[kind.negative] = example["negatives"][0]
    return {field.name: texts[field.name] for field in kind.fields}


def id_columns(row: PlannedRow) -> Row:
    """The columns that every record of alignment begins with; one record for each planned row."""
    return {
        "id": row.row_id,
        "row_id": row.row_id,
        "parent_id": row.parent["id"],
        "kind": row.parent["kind"],
        "topic": row.parent["topic"],
    }
