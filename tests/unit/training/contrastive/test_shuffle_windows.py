"""Windows of shards: flat memory, each row at most once an epoch, the same order from the same seed."""

import itertools
from collections import Counter

import numpy as np
import pytest

from speed_ray.training.contrastive import batches
from speed_ray.training.contrastive.batches import BatchGroup

RETRIEVAL, STS = BatchGroup("retrieval", 1, False), BatchGroup("sts", 1, False)
ROWS = 10  # of each shard: 7 of one kind, 3 of the other
SHARDS = 9


def families(shard):
    return {RETRIEVAL: np.arange(7, dtype=np.int32), STS: np.arange(7, ROWS, dtype=np.int32)}


def drawn(least=20, size=4, seed=1):
    return batches.draw_window_batches(batches.shuffle_windows([ROWS] * SHARDS, least, seed), families, size, seed)


def epoch(number, **settings):
    of_epoch = itertools.dropwhile(lambda each: each.window.epoch < number, drawn(**settings))
    return list(itertools.takewhile(lambda each: each.window.epoch == number, of_epoch))


def places(made):
    return [place for each in made for batch in each.batches for place in batch.places.tolist()]


@pytest.mark.parametrize("least", [1, 20, 1000])
def test_an_epoch_takes_every_row_once_but_for_less_than_a_batch(least):
    taken = Counter(places(epoch(0, least=least)))
    assert set(taken.values()) == {1}
    assert SHARDS * ROWS - len(taken) < 4
    assert {batches.shard_and_row(place) for place in taken} <= {
        (shard, row) for shard in range(SHARDS) for row in range(ROWS)
    }


def test_a_window_holds_no_more_shards_than_it_needs():
    assert [len(each.window.shards) for each in epoch(0)] == [2, 2, 2, 2, 1]


def test_epochs_have_orders_of_their_own():
    assert places(epoch(0)) != places(epoch(1))
    assert places(epoch(1)) == places(epoch(1))
    assert places(epoch(1)) != places(epoch(1, seed=2))


def test_batches_need_only_the_window_and_what_was_left_over():
    left = set()
    for each in epoch(0):
        for batch in each.batches:
            for place in batch.places.tolist():
                assert place in left or batches.shard_and_row(place)[0] in each.window.shards
        left = {place for places in each.left.values() for place in places.tolist()}
