"""Read what a recipe writes about, topics or documents, and choose the few that it is rehearsed on."""

from typing import Any

import pyarrow as pa
from obstore.store import MemoryStore

from speed_ray.recipes.schema import Recipe
from speed_ray.recipes.training_settings import Workers
from speed_ray.records import NEIGHBOUR, PASSAGE
from speed_ray.stages import driver_stage
from speed_ray.stages.documents import prepare_documents, publish_documents
from speed_ray.stages.example_request import asked_about
from speed_ray.stages.passages import prepare_split, split_passages
from speed_ray.stages.topics import collect_topics, topics_of
from speed_ray.storage.planned_rows import read_records, weighted_round_robin
from speed_ray.storage.run import NEIGHBOURS, PASSAGES, TOPICS, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import Artifact
from speed_ray.storage.store import ObjectStore


def run_in_memory() -> Run:
    """Return an empty run that ends with this process."""
    return Run("memory://", ObjectStore(MemoryStore(), "memory://"))


def read_inputs(recipe: Recipe, run: Run | None) -> Run:
    """Return the run where it has its topics or passages, else one in memory that has read them."""
    if run and run.artifact(PASSAGES if recipe.is_grounded else TOPICS).manifest() is not None:
        return run
    read = run_in_memory()
    if not recipe.is_grounded:
        collect_topics(read, topics_of(recipe))
        return read
    assert recipe.corpus is not None
    here = recipe.model_copy(update={"corpus": recipe.corpus.model_copy(update={"workers": Workers()})})
    split = prepare_split(here)
    with prepare_documents(read, here) as prepared:
        publish_documents(read, prepared)
    split_passages(read, split)
    return read


def take_few(source: Run, small: Run, recipe: Recipe, rows: int) -> None:
    """Publish a few of the source's topics or passages in a small run, spread evenly.

    So many topics: each is asked for a task of every kind. They are among the first that all later stages get to, so
    that a run of the whole recipe asks the very same prompts.
    """
    if small.artifact(PASSAGES if recipe.is_grounded else TOPICS).manifest() is not None:
        return  # a sample that was begun keeps what it is about
    if not recipe.is_grounded:
        lines = [row["source"] for row in source.artifact(TOPICS).records()]
        lines = lines[: max(rows, _reach(recipe))]
        collect_topics(small, [lines[place] for place in _spread(len(lines), rows)])
        return
    name = asked_about(recipe)
    made = source.artifact(name).manifest() is not None
    passages = source.artifact(name if made else PASSAGES)
    there = sum(file.rows for file in passages.record_files().values())
    taken = [read_records(passages, range(place, place + 1))[0] for place in _spread(there, rows)]
    _publish_passages(small, PASSAGES, PASSAGE, [{key: row[key] for key in PASSAGE.names} for row in taken])
    if name == NEIGHBOURS:
        others = zip(taken, [*taken[1:], *taken[:1]], strict=True)  # about as long as the nearest, which none has yet
        beside = [{**row, "neighbour_id": other["id"], "neighbour": other["text"]} for row, other in others]
        _publish_passages(small, NEIGHBOURS, NEIGHBOUR, taken if made else beside)


def publish_few(
    small: Run, name: str, schema: pa.Schema, rows: list[Any], identity: dict[str, Any], source: str | None = None
) -> Artifact:
    """Publish rows of a rehearsal as an artifact of one shard."""
    artifact, plan = small.artifact(name), Plan(name, len(rows), max(1, len(rows)), source, identity=identity)
    results = (driver_stage.RowResult(row["id"], row, None) for row in rows)
    driver_stage.publish_rows(artifact, plan, schema, results)
    return artifact


def _publish_passages(small: Run, name: str, schema: pa.Schema, rows: list[dict[str, Any]]) -> None:
    publish_few(small, name, schema, rows, {"few": [row["id"] for row in rows]})


def _reach(recipe: Recipe) -> int:
    """Return how many tasks of each kind every stage gets to that goes through the tasks in their order."""
    cycle = weighted_round_robin({kind: weight for kind, weight in recipe.mix.items() if weight})
    prompts = min(recipe.draft.examples, recipe.propose.lists, recipe.synthesize.examples or recipe.draft.examples)
    return min(prompts * cycle.count(kind) // len(cycle) for kind in set(cycle))


def _spread(there: int, wanted: int) -> list[int]:
    wanted = min(there, wanted)
    return [place * there // wanted for place in range(wanted)]
