"""Commit the rows of stages that ask no model: the driver alone passes on or rejects each input row, in order."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from types import MappingProxyType
from typing import NamedTuple

import pyarrow as pa

from speed_ray.errors import Interrupted
from speed_ray.recipes.training_settings import Workers
from speed_ray.records import REJECT, RejectRow, Row
from speed_ray.storage.attempt import Attempt
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import RECORDS, REJECTS, Artifact, Counts


class RowResult(NamedTuple):
    """Hold the result of one planned row: a record, or a reject; and what searches and judges counted for it."""

    row_id: str
    record: Row | None
    reject: RejectRow | None
    mined: Mapping[str, int] = MappingProxyType({})
    judged: Mapping[str, int] = MappingProxyType({})


Shards = Iterator[tuple[int, list[RowResult]]]
MakeShard = Callable[[int], list[RowResult]]  # a shard's number -> its rows


def reject(row_id: str, parent_id: str, stage: str, reason: str, detail: str, text: str, kind: str = "") -> RowResult:
    """Return a reject, with its reason to be counted and its text kept."""
    row: RejectRow = {
        "row_id": row_id,
        "parent_id": parent_id,
        "stage": stage,
        "kind": kind,
        "reason": reason,
        "detail": detail,
        "text": text,
    }
    return RowResult(row_id, None, row)


def publish_rows(artifact: Artifact, plan: Plan, record: pa.Schema, rows: Iterator[RowResult]) -> None:
    """Commit all rows, shard by shard, and publish. `rows` starts at the first row, whatever is committed already.

    Raises Interrupted where a committed file was damaged before publication.
    """
    shards = ((shard, list(islice(rows, len(plan.rows_of(shard))))) for shard in range(plan.shards))
    publish_shards(artifact, plan, record, lambda pending: shards)


def publish_shards(
    artifact: Artifact, plan: Plan, record: pa.Schema, make: Callable[[Collection[int]], Shards]
) -> None:
    """Commit the shards that `make` yields when it is given those that are not committed yet, and publish.

    Raises Interrupted where a committed file was damaged before publication.
    """
    artifact.ensure_plan(plan)
    if artifact.manifest() is not None:
        return
    pending = dict(artifact.pending(plan))
    writing: Future[None] | None = None
    with ThreadPoolExecutor(1, "write") as writer:  # one shard is written, and stored, while the next is made
        for shard, results in make(list(pending)):
            if writing is not None:
                writing.result()
                writing = None
            if shard in pending:
                writing = writer.submit(_commit, artifact, plan, shard, pending[shard], record, results)
        if writing is not None:
            writing.result()
    if not artifact.publish(plan):
        raise Interrupted(
            f"{artifact.where}: a committed file was damaged, and its shard was withdrawn.\n"
            "Run the same command again: it makes only that shard anew."
        )


def map_shards(
    key: str,
    shards: Sequence[int],
    workers: Workers,
    here: Callable[[], MakeShard],
    in_worker: Callable[[], MakeShard],
) -> Shards:
    """Make shards in this process, or on Ray where `<key>.workers` asks for several workers or for GPUs.

    `here` and `in_worker` are called once in each process, and load what makes a shard; the second travels to Ray.
    """
    if workers.num_workers > 1 or workers.num_gpus:
        from speed_ray.on_ray import map_tasks  # brings Ray, which one process does without

        for index, results in map_tasks.map_tasks(key, shards, in_worker, workers):
            yield shards[index], results
    elif shards:
        make = here()
        for shard in shards:
            yield shard, make(shard)


def _commit(
    artifact: Artifact, plan: Plan, shard: int, generation: int, record: pa.Schema, results: list[RowResult]
) -> None:
    records = [row.record for row in results if row.record]
    rejects = [row.reject for row in results if row.reject]
    attempt = Attempt(artifact, plan, shard, generation)
    attempt.write(RECORDS, records, record)
    attempt.write(REJECTS, rejects, REJECT)
    counts = Counts(
        accepted=len(records),
        rejected=len(rejects),
        records=len(records),
        kinds=dict(Counter(row["kind"] for row in records if "kind" in row)),
        reasons=dict(Counter(row["reason"] for row in rejects)),
        mined=dict(sum((Counter(row.mined) for row in results), Counter())),
        judged=dict(sum((Counter(row.judged) for row in results), Counter())),
    )
    attempt.commit([row.row_id for row in results], counts)
