"""A run of documents in memory: passages that no document was read for, and the recipe of what is written of them."""

from collections.abc import Iterator
from typing import Any

from speed_ray import recipes
from speed_ray.recipes.schema import Recipe
from speed_ray.records import PASSAGE, PassageRow
from speed_ray.stages.driver_stage import RowResult, publish_rows
from speed_ray.storage.run import PASSAGES, Run
from speed_ray.storage.shard_plan import Plan

TOOLS = ("saw", "hammer", "chisel", "plane", "rasp", "clamp", "drill", "gauge", "level", "square")


def grounded_recipe(**keys: Any) -> Recipe:
    """A recipe of documents whose generator is simulated."""
    return recipes.validate({"corpus": {"source": "docs"}, "generator": {"engine": "simulated"}, **keys}, "test")


def passage(number: int, split: str = "train") -> PassageRow:
    """A passage about a tool."""
    tool = TOOLS[number % len(TOOLS)]
    text = f"The {tool} number {number} hangs at the wall. Clean its edge with oil after work, and keep it from damp."
    return {
        "id": f"{number:032x}",
        "parent_id": f"d{number}",
        "document_id": f"d{number}",
        "title": f"The {tool}",
        "headings": "Tools\nCare",
        "text": text,
        "start": 0,
        "end": len(text),
        "tokens": 24,
        "digest": "",
        "split": split,
    }


def publish_passages(run: Run, passages: list[PassageRow], shard_rows: int = 4) -> None:
    """Publish passages as if documents had been split into them."""

    def rows() -> Iterator[RowResult]:
        for row in passages:
            yield RowResult(row["id"], row, None)

    publish_rows(run.artifact(PASSAGES), Plan(PASSAGES, len(passages), shard_rows), PASSAGE, rows())
