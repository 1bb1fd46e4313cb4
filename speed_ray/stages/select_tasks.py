"""Select `tasks` from the proposed ones: a few for each topic and kind (one by default), without near duplicates.

SPEED, table 3: one task a topic gives 62.6 MTEB, three 61.6, five 60.9. Diversity is what counts.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from rensa import RMinHash, RMinHashLSH

from speed_ray import kinds
from speed_ray.executor.stage import artifact_identity
from speed_ray.recipes.schema import Recipe
from speed_ray.records import TASK, TaskRow
from speed_ray.stages import driver_stage
from speed_ray.storage.fingerprint import code_digests
from speed_ray.storage.run import PROPOSED_TASKS, TASKS, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import Artifact
from speed_ray.text.words import split_words

PERMUTATIONS = 128
BANDS = 32  # of 4 rows: finds a pair of Jaccard 0.5 with 87%; the exact Jaccard then decides


def select_tasks(run: Run, recipe: Recipe) -> Artifact:
    """Publish the selected tasks; every other proposal is a reject with its reason."""
    source = run.artifact(PROPOSED_TASKS)
    manifest = source.manifest()
    assert manifest is not None, "select follows the proposals"
    settings = recipe.brainstorm
    plan = Plan(
        stage=TASKS,
        rows=manifest["counts"]["records"],
        shard_rows=settings.shard_rows * settings.tasks_per_prompt,
        input=PROPOSED_TASKS,
        identity={
            "code": code_digests(__name__),
            "input": artifact_identity(source),
            "keep": settings.tasks_per_topic,
            "duplicate_similarity": settings.duplicate_similarity,
        },
    )
    artifact = run.artifact(TASKS)
    driver_stage.publish_rows(
        artifact, plan, TASK, _select(source.records(), settings.tasks_per_topic, settings.duplicate_similarity)
    )
    return artifact


def _select(proposals: Iterator[TaskRow], keep: int, similarity: float) -> Iterator[driver_stage.RowResult]:
    kept: Counter[tuple[str, str]] = Counter()
    seen: dict[str, TaskDeduplicator] = {}
    for row in proposals:
        own_task = kinds.load_kind(row["kind"]).instruction is None
        repeats = seen.setdefault(row["kind"], TaskDeduplicator(similarity)).find(row["task"]) if own_task else None
        if kept[row["parent_id"], row["kind"]] >= keep:
            yield _reject(row, "surplus", f"{keep} kept for this topic and kind")
        elif repeats:
            yield _reject(row, "near_duplicate", f"repeats: {repeats}")
        else:
            kept[row["parent_id"], row["kind"]] += 1
            if own_task:
                seen[row["kind"]].add(row["task"])
            yield driver_stage.RowResult(row["id"], row, None)


def _reject(row: TaskRow, reason: str, detail: str) -> driver_stage.RowResult:
    return driver_stage.reject(row["id"], row["parent_id"], TASKS, reason, detail, row["task"], row["kind"])


class TaskDeduplicator:
    """Find near duplicates among one kind's tasks: candidates by MinHash, then the exact Jaccard of word pairs."""

    def __init__(self, similarity: float) -> None:
        self.similarity = similarity
        self.index = RMinHashLSH(threshold=0.5, num_perm=PERMUTATIONS, num_bands=BANDS)
        self.tasks: list[str] = []

    def find(self, task: str) -> str | None:
        """Return a task added before that this one nearly duplicates, or None."""
        pairs = _word_pairs(task)
        for index in self.index.query(_sketch(pairs)):
            kept: str = self.tasks[index]
            other = _word_pairs(kept)
            if len(pairs & other) >= self.similarity * len(pairs | other):
                return kept
        return None

    def add(self, task: str) -> None:
        """Add a task to those that later ones are compared with."""
        self.index.insert(len(self.tasks), _sketch(_word_pairs(task)))
        self.tasks.append(task)


def _word_pairs(task: str) -> set[str]:
    words = split_words(task)
    return {f"{first} {second}" for first, second in pairwise(words)} or set(words)


def _sketch(pairs: set[str]) -> RMinHash:
    sketch = RMinHash(num_perm=PERMUTATIONS, seed=0)
    sketch.update(sorted(pairs))
    return sketch
