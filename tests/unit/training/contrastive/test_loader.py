"""The rows that a batch names are the rows that are read, or none: also while shards are still being committed."""

import numpy as np
import pytest

from speed_ray.errors import Interrupted
from speed_ray.records import CURATED, EXAMPLE, REJECT
from speed_ray.storage.attempt import Attempt
from speed_ray.storage.run import EXAMPLES, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import RECORDS, REJECTS, Counts
from speed_ray.training.contrastive.batches import ROW_BITS
from speed_ray.training.contrastive.loader import COLUMNS, Corpus, RowCache
from tests.unit.training.contrastive.test_loop import example

PLAN = Plan(EXAMPLES, rows=6, shard_rows=3, input="tasks", mix={"retrieval": 1})


@pytest.fixture
def artifact(tmp_path):
    artifact = Run(str(tmp_path / "run")).artifact(EXAMPLES)
    artifact.ensure_plan(PLAN)
    return artifact


def commit(artifact, shard, numbers, generation=0):
    """Commit a shard of three rows: examples of these numbers, and rejects in the place of the others."""
    attempt = Attempt(artifact, PLAN, shard, generation)
    rows = [{name: example(number)[name] for name in EXAMPLE.names} for number in numbers]
    ids = [row["row_id"] for row in rows]
    lost = [f"lost {place}" for place in range(3 - len(rows))]
    attempt.write(RECORDS, rows, EXAMPLE)
    attempt.write(REJECTS, [dict.fromkeys(REJECT.names, "-") | {"row_id": row_id} for row_id in lost], REJECT)
    assert attempt.commit([*ids, *lost], Counts(accepted=len(ids), rejected=len(lost), records=len(ids)))


def test_a_shard_of_rejects_alone_has_no_rows(artifact):
    commit(artifact, 0, [])
    corpus = Corpus(artifact, [], files=None)
    assert corpus.groups(0) == {}
    assert corpus.table(0).schema.types == [CURATED.field(name).type for name in COLUMNS]


def test_a_row_that_is_gone_is_not_replaced_by_its_neighbour(artifact):
    commit(artifact, 0, [1, 2])
    commit(artifact, 1, [4, 5, 6])
    wanted = np.array([0, 1, 2, 1 << ROW_BITS], np.int64)  # drawn when shard 0 had three rows
    cache = RowCache(Corpus(artifact, [], files=None)).advance(wanted)
    assert cache.take(wanted[:2], ["id"])["id"].to_pylist() == [example(1)["id"], example(2)["id"]]
    with pytest.raises(Interrupted, match="no row 2 in shard 0 any more"):
        cache.take(wanted, ["id"])


def test_rows_are_read_from_the_file_that_they_were_drawn_from(artifact):
    commit(artifact, 0, [1, 2, 3])
    corpus = Corpus(artifact, [], files=None)
    before = corpus.table(0)
    artifact.withdraw(artifact.commit_of(0))
    commit(artifact, 0, [7, 8, 9], generation=1)
    assert corpus.table(0).equals(before)


def test_a_shard_that_was_withdrawn_is_not_one_without_rows(artifact):
    commit(artifact, 0, [1, 2, 3])
    artifact.withdraw(artifact.commit_of(0))
    with pytest.raises(Interrupted, match=r"Shard 0 of .* was withdrawn"):
        Corpus(artifact, [], files=None).groups(0)
