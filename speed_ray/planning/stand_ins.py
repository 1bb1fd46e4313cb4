"""Put the teacher's examples in the place of those that models will write which are not trained yet.

They are learnt from the teacher, so that theirs are about as long: judges and revisors are shown such ones meanwhile.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from speed_ray import kinds
from speed_ray.executor.stage import artifact_identity
from speed_ray.planning.inputs import publish_few
from speed_ray.recipes.schema import Recipe
from speed_ray.records import (
    CANDIDATE_LIST,
    CURATED,
    EXAMPLE,
    RANKED,
    TRAIN,
    CandidatesRow,
    ExampleRow,
    IdColumns,
    Row,
)
from speed_ray.stages.example_request import DRAFT, PROPOSE, from_json, sample_slots, to_columns
from speed_ray.storage.run import CANDIDATES, CURATED_EXAMPLES, DRAFTS, EXAMPLES, RANKED_EXAMPLES, TASKS, Run
from speed_ray.storage.shards import Artifact


def lists_of_drafts(run: Run, recipe: Recipe) -> Artifact:
    """Publish a list of candidates for each draft: itself and the next of its kind."""
    drafts, tasks = list(run.artifact(DRAFTS).records()), {row["id"]: row for row in run.artifact(TASKS).records()}
    replies: dict[str, list[str]] = defaultdict(list)
    for draft in drafts:
        replies[draft["kind"]].append(draft["reply"])

    def lists() -> Iterator[CandidatesRow]:
        for draft in drafts:
            of_kind = replies[draft["kind"]]
            first = of_kind.index(draft["reply"])
            slots = sample_slots(recipe, kinds.load_kind(draft["kind"]), draft["row_id"], PROPOSE)
            shown = {of_kind[(first + place) % len(of_kind)]: None for place in range(recipe.propose.candidates)}
            yield {
                **_ids(draft),
                "messages": draft["messages"],
                "task": tasks[draft["parent_id"]]["task"],
                "language": slots.language,
                "candidates": list(shown),
                "model": draft["model"],
            }

    return _publish(run, DRAFTS, CANDIDATES, CANDIDATE_LIST, list(lists()))


def examples_of_drafts(run: Run, recipe: Recipe) -> Artifact:
    """Publish the drafts as examples."""
    tasks = {row["id"]: row for row in run.artifact(TASKS).records()}

    def examples() -> Iterator[ExampleRow]:
        for draft in run.artifact(DRAFTS).records():
            kind = kinds.load_kind(draft["kind"])
            yield {
                **_ids(draft),
                "language": sample_slots(recipe, kind, draft["row_id"], DRAFT).language,
                "instruction": kind.instruction or tasks[draft["parent_id"]]["task"],
                **to_columns(kind, from_json(draft["reply"])),
                "model": draft["model"],
            }

    return _publish(run, DRAFTS, EXAMPLES, EXAMPLE, list(examples()))


def curated_as_written(run: Run) -> Artifact:
    """Publish all examples as curated ones: what curation will turn away is not known."""
    rows = [{**row, "split": TRAIN} for row in run.artifact(EXAMPLES).records()]
    return _publish(run, EXAMPLES, CURATED_EXAMPLES, CURATED, rows)


def ranked_as_late(run: Run, recipe: Recipe) -> Artifact:
    """Publish all examples as ones whose passages are found late: how many will be is not known."""
    rows = [{**row, "rank": recipe.revise.found_after + 1} for row in run.artifact(EXAMPLES).records()]
    return _publish(run, EXAMPLES, RANKED_EXAMPLES, RANKED, rows)


def _ids(row: Row) -> IdColumns:
    return {
        "id": row["id"],
        "row_id": row["row_id"],
        "parent_id": row["parent_id"],
        "kind": row["kind"],
        "topic": row["topic"],
    }


def _publish(run: Run, source: str, name: str, schema: pa.Schema, rows: list[Any]) -> Artifact:
    return publish_few(run, name, schema, rows, {"stand_in": artifact_identity(run.artifact(source))}, source)
