"""Read what planned rows took: of a sample, of a rehearsal, or of a run."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from speed_ray.records import Row
from speed_ray.storage.shards import RECORDS, REJECTS, REPLIES, Artifact, Commit


@dataclass(frozen=True)
class RowFact:
    """Holds what one planned row took, over all of its trials."""

    kind: str
    calls: int  # 0: no model was needed
    prompt_tokens: float
    output_tokens: float
    seconds: float  # of all calls, one after another
    records: int  # 0: it was rejected
    counted: float = 0.0  # tokens of all its prompts by our own counter, 0 where that was not asked


def read_facts(artifact: Artifact, count: Any = None, shards: int | None = None) -> list[RowFact]:
    """Read the rows of all committed shards, or of the first so many.

    `count` counts a prompt's tokens, beside what the engine told.
    """
    plan = artifact.plan()
    assert plan is not None, f"{artifact.where} has no plan"
    commits = islice(artifact.commits(), shards)
    return [fact for commit in commits for fact in _of_shard(artifact, commit, plan.key, count)]


def _of_shard(artifact: Artifact, commit: Commit, key: str, count: Any) -> Iterator[RowFact]:
    replies: dict[str, list[Row]] = defaultdict(list)
    for row in _rows(artifact, commit, REPLIES):
        replies[row["row_id"]].append(row)
    kinds: dict[str, str] = {}
    records: dict[str, int] = defaultdict(int)
    for row in _rows(artifact, commit, RECORDS):
        kinds[row[key]] = row["kind"]
        records[row[key]] += 1
    kinds |= {row["row_id"]: row["kind"] for row in _rows(artifact, commit, REJECTS)}
    for row_id, kind in kinds.items():
        asked = [row for row in replies[row_id] if row["sample"] == 0]
        yield RowFact(
            kind=kind,
            calls=len(asked),
            prompt_tokens=_sum(asked, "prompt_tokens"),
            output_tokens=_sum(replies[row_id], "output_tokens"),
            seconds=_sum(asked, "seconds"),
            records=records[row_id],
            counted=sum(count(row["messages"]) for row in asked) if count else 0.0,
        )


def _rows(artifact: Artifact, commit: Commit, role: str) -> list[Row]:
    return artifact.read(commit.files[role].path).to_pylist() if role in commit.files else []


def _sum(rows: Iterable[Row], column: str) -> float:
    return float(sum(row[column] for row in rows))
