"""Planned rows are a pure function of the plan: even, without gaps, the same for every shard size."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from obstore.store import MemoryStore

from speed_ray.errors import UserError
from speed_ray.records import TASK, content_id
from speed_ray.stages import driver_stage
from speed_ray.storage.planned_rows import Inputs, kind_and_turn, weighted_round_robin
from speed_ray.storage.run import TASKS
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import Artifact
from speed_ray.storage.store import ObjectStore

KINDS = ("classification", "sts", "retrieval")
MIXES = st.dictionaries(st.sampled_from("abcdefg"), st.integers(1, 12), min_size=1, max_size=7)


@given(MIXES)
def test_every_prefix_of_the_pattern_gives_each_kind_its_share(mix):
    cycle = weighted_round_robin(mix)
    assert Counter(cycle) == mix
    for length in range(1, len(cycle) + 1):
        for kind, count in Counter(cycle[:length]).items():
            assert abs(count - length * mix[kind] / len(cycle)) < len(mix)
        for kind, weight in mix.items():
            if cycle[:length].count(kind) == 0:
                assert length * weight / len(cycle) < len(mix)


def test_the_papers_mix_stays_within_one_row_of_its_share():
    mix = {"classification": 7, "sts": 7, "retrieval": 7, "matching_short": 1, "matching_long": 1}
    cycle = weighted_round_robin(mix)
    for length in range(1, len(cycle) + 1):
        for kind, weight in mix.items():
            assert abs(cycle[:length].count(kind) - length * weight / 23) < 1.0


@given(MIXES, st.integers(1, 200))
def test_turns_count_up_without_a_gap_for_every_kind(mix, rows):
    met = Counter()
    for i in range(rows):
        kind, turn = kind_and_turn(mix, i)
        assert turn == met[kind]
        met[kind] += 1


@given(MIXES, st.randoms(use_true_random=False))
def test_the_order_in_which_a_mix_was_written_changes_nothing(mix, rng):
    names = list(mix)
    rng.shuffle(names)
    assert weighted_round_robin({name: mix[name] for name in names}) == weighted_round_robin(mix)


class Counting(Artifact):
    """An artifact that counts which files are read."""

    def __init__(self, store: ObjectStore) -> None:
        super().__init__(store, TASKS)
        self.files: Counter[str] = Counter()

    def read(self, path: str):
        self.files[path] += 1
        return super().read(path)


def tasks(kinds: list[str | None], shard_rows: int) -> Counting:
    """Publish tasks of the kinds given; None is a reject."""
    artifact = Counting(ObjectStore(MemoryStore(), "memory://"))

    def passed(number: int, kind: str | None) -> driver_stage.RowResult:
        name = content_id(str(number))
        if kind is None:
            return driver_stage.reject(name, "", TASKS, "bad", "", "")
        row = {"row_id": "r", "parent_id": "p", "kind": kind, "topic": "t", "task": f"task {number}", "model": "m"}
        return driver_stage.RowResult(name, {"id": name, **row}, None)

    plan = Plan(TASKS, rows=len(kinds), shard_rows=shard_rows)
    driver_stage.publish_rows(artifact, plan, TASK, (passed(*pair) for pair in enumerate(kinds)))
    return artifact


@given(
    st.lists(st.sampled_from([*KINDS, None]), min_size=1, max_size=25).filter(lambda kinds: {"sts"} <= set(kinds)),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 40),
    st.booleans(),
)
def test_shard_sizes_change_no_row_and_no_order(kinds, file_rows, shard_rows, rows, mixed):
    source = tasks(kinds, file_rows)
    good = [content_id(str(i)) for i, kind in enumerate(kinds) if kind]
    how = {"mix": {kind: 3 for kind in set(kinds) - {None}}} if mixed else {"variants": ("a", "b")}
    rows = rows if mixed else 2 * len(good)

    def planned(size: int) -> list[tuple[str, str, str]]:
        inputs = Inputs(source, Plan("x", rows=rows, shard_rows=size, input=TASKS, **how))
        found = [row for shard in range(inputs.plan.shards) for row in inputs.of_shard(shard)]
        return [(row.row_id, row.parent["id"], row.variant) for row in found]

    whole = planned(1000)
    assert planned(shard_rows) == whole
    assert len({row_id for row_id, _, _ in whole}) == len(whole) == rows
    assert all(row_id == content_id(parent, variant) for row_id, parent, variant in whole)
    if not mixed:
        assert [(parent, variant) for _, parent, variant in whole] == [(i, v) for i in good for v in ("a", "b")]


def test_a_mix_goes_around_each_kinds_own_rows_with_a_new_variant_each_time():
    source = tasks(["sts", "retrieval", "sts", None, "sts"], shard_rows=2)
    inputs = Inputs(source, Plan("x", rows=10, shard_rows=10, input=TASKS, mix={"retrieval": 1, "sts": 1}))
    rows = [(row.parent["kind"], row.parent["task"], row.variant) for row in inputs.of_shard(0)]
    assert [row for row in rows if row[0] == "retrieval"] == [("retrieval", "task 1", str(i)) for i in range(5)]
    assert [row[1:] for row in rows if row[0] == "sts"] == [
        ("task 0", "0"), ("task 2", "0"), ("task 4", "0"), ("task 0", "1"), ("task 2", "1")
    ]  # fmt: skip


@pytest.mark.parametrize("how", [{"variants": ("a",)}, {"mix": {"sts": 1}}])
def test_a_worker_reads_only_the_files_that_its_shard_touches(how):
    source = tasks(["sts"] * 100, shard_rows=10)
    inputs = Inputs(source, Plan("x", rows=100, shard_rows=15, input=TASKS, **how))
    inputs.of_shard(0)
    inputs.of_shard(1)
    assert len(source.files) == 3
    assert set(source.files.values()) == {1}, "a file that two shards share is read once"


def test_an_unpublished_input_names_the_job_to_run():
    source = tasks(["sts"], shard_rows=1)
    source.unpublish()
    with pytest.raises(UserError, match=r"tasks is not finished: run the job that makes 'tasks' first"):
        Inputs(source, Plan("x", rows=1, shard_rows=1, input=TASKS, variants=("a",)))
