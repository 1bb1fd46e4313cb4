"""Batches of contrastive training: of one kind where it can be, every row at most once an epoch, by the seed alone."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speed_ray.training.contrastive import batches
from speed_ray.training.contrastive.batches import BatchGroup

RETRIEVAL, STS = BatchGroup("retrieval", 1, False), BatchGroup("sts", 1, False)
MATCHING, CLASSIFICATION = BatchGroup("matching", 0, False), BatchGroup("classification", 1, True)
ROWS = [RETRIEVAL] * 20 + [STS] * 13 + [MATCHING] * 5 + [CLASSIFICATION] * 9


def draw(groups, size, seed, is_last=False):
    rows = {each: np.flatnonzero([group == each for group in groups]) for each in set(groups)}
    return batches.draw_batches(rows, size, np.random.default_rng(seed), is_last)


def indices(made):
    return [batch.rows.tolist() for batch in made]


@given(st.lists(st.sampled_from([RETRIEVAL, STS, MATCHING, CLASSIFICATION]), max_size=60), st.integers(1, 9))
def test_rows_are_drawn_once_or_left_over(groups, size):
    made, leftover = draw(groups, size, 1)
    taken = [index for batch in made for index in batch.rows]
    rest = [index for rows in leftover.values() for index in rows]
    assert sorted([*taken, *rest]) == list(range(len(groups)))
    assert all(groups[index] == group for group, rows in leftover.items() for index in rows)


@given(st.lists(st.sampled_from([RETRIEVAL, STS, MATCHING, CLASSIFICATION]), max_size=60), st.integers(1, 9))
def test_batches_are_full_and_hold_only_rows_that_may_meet(groups, size):
    made, _ = draw(groups, size, 1)
    for batch in made:
        together = {groups[index] for index in batch.rows}
        assert len(batch.rows) == size
        assert len({group.negatives for group in together}) == 1
        assert {group.no_in_batch_negatives for group in together} == {batch.no_in_batch_negatives}
    counts = Counter((group.negatives, group.no_in_batch_negatives) for group in groups)
    assert len(made) == sum(count // size for count in counts.values()), "rows were left that would fill a batch"


@given(st.lists(st.sampled_from([RETRIEVAL, STS, MATCHING, CLASSIFICATION]), max_size=60), st.integers(1, 9))
def test_at_the_end_of_an_epoch_no_row_is_left_over(groups, size):
    made, leftover = draw(groups, size, 1, is_last=True)
    taken = [index for batch in made for index in batch.rows]
    assert sorted(taken) == list(range(len(groups))) and not any(map(len, leftover.values()))
    assert all(len(batch.rows) <= size for batch in made)
    counted = {group: np.flatnonzero([each == group for each in groups]) for group in set(groups)}
    assert len(made) == batches.count_batches([counted], size)


def test_smaller_batches_are_of_even_size():
    made, _ = draw([RETRIEVAL] * 7 + [STS] * 6, 8, 1, is_last=True)
    assert sorted(len(batch.rows) for batch in made) == [6, 7]


def test_kinds_meet_only_in_what_is_left_of_them():
    made, _ = draw(ROWS, 4, 1)
    mixed = [batch for batch in made if len({ROWS[index].kind for index in batch.rows}) > 1]
    assert len(mixed) <= 1


def test_the_order_is_the_seeds_alone():
    assert indices(draw(ROWS, 4, 1)[0]) == indices(draw(ROWS, 4, 1)[0])
    assert indices(draw(ROWS, 4, 1)[0]) != indices(draw(ROWS, 4, 2)[0])


SHARD_ROWS = 10  # of each shard: 7 of one kind, 3 of the other
SHARDS = 9


def groups_of(shard):
    return {RETRIEVAL: np.arange(7, dtype=np.int32), STS: np.arange(7, SHARD_ROWS, dtype=np.int32)}


def draw_epochs(min_rows=20, size=4, seed=1):
    return batches.draw_window_batches(
        batches.shuffle_windows([SHARD_ROWS] * SHARDS, min_rows, seed), groups_of, size, seed
    )


def epoch(number, **settings):
    of_epoch = itertools.dropwhile(lambda each: each.window.epoch < number, draw_epochs(**settings))
    return list(itertools.takewhile(lambda each: each.window.epoch == number, of_epoch))


def epoch_indices(windows):
    return [index for each in windows for batch in each.batches for index in batch.rows.tolist()]


@pytest.mark.parametrize("min_rows", [1, 20, 1000])
@pytest.mark.parametrize("size", [4, 64])
def test_an_epoch_takes_every_row_once(min_rows, size):
    taken = Counter(epoch_indices(epoch(0, min_rows=min_rows, size=size)))
    assert set(taken.values()) == {1}
    assert {divmod(index, 1 << batches.ROW_BITS) for index in taken} == {
        (shard, row) for shard in range(SHARDS) for row in range(SHARD_ROWS)
    }


def test_a_window_holds_no_more_shards_than_it_needs():
    assert [len(each.window.shards) for each in epoch(0)] == [2, 2, 2, 2, 1]


def test_epochs_have_orders_of_their_own():
    assert epoch_indices(epoch(0)) != epoch_indices(epoch(1))
    assert epoch_indices(epoch(1)) == epoch_indices(epoch(1))
    assert epoch_indices(epoch(1)) != epoch_indices(epoch(1, seed=2))


def test_batches_need_only_the_window_and_what_was_left_over():
    leftover = set()
    for each in epoch(0):
        for batch in each.batches:
            for index in batch.rows.tolist():
                assert index in leftover or index >> batches.ROW_BITS in each.window.shards
        leftover = {index for rows in each.leftover.values() for index in rows.tolist()}
