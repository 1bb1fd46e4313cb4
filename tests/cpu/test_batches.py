"""Batches of contrastive training: of one kind where it can be, every row at most once an epoch, by the seed alone."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from speed_ray.training import batches
from speed_ray.training.batches import Family

RETRIEVAL, STS = Family("retrieval", 1, False), Family("sts", 1, False)
MATCHING, CLASSIFICATION = Family("matching", 0, False), Family("classification", 1, True)
FAMILIES = [RETRIEVAL] * 20 + [STS] * 13 + [MATCHING] * 5 + [CLASSIFICATION] * 9


def seen(epoch):
    return [batch.places.tolist() for batch in epoch]


@given(st.lists(st.sampled_from([RETRIEVAL, STS, MATCHING, CLASSIFICATION]), max_size=60), st.integers(1, 9))
def test_an_epoch(families, size):
    epoch = batches.epoch(families, size, seed=1, number=0)
    taken = [place for batch in epoch for place in batch.places]
    assert len(set(taken)) == len(taken)
    for batch in epoch:
        together = {families[place] for place in batch.places}
        assert len(batch.places) == size
        assert len({family.negatives for family in together}) == 1
        assert {family.own_negatives_only for family in together} == {batch.own_negatives_only}
    groups = Counter((family.negatives, family.own_negatives_only) for family in families)
    assert len(epoch) == sum(count // size for count in groups.values()), "rows were left that would fill a batch"


def test_kinds_meet_only_in_what_is_left_of_them():
    epoch = batches.epoch(FAMILIES, 4, seed=1, number=0)
    mixed = [batch for batch in epoch if len({FAMILIES[place].kind for place in batch.places}) > 1]
    assert len(mixed) <= 1


def test_the_order_is_the_seeds_and_the_epochs_alone():
    first = seen(batches.epoch(FAMILIES, 4, seed=1, number=0))
    assert seen(batches.epoch(FAMILIES, 4, seed=1, number=0)) == first
    assert seen(batches.epoch(FAMILIES, 4, seed=1, number=1)) != first
    assert seen(batches.epoch(FAMILIES, 4, seed=2, number=0)) != first


def test_a_row_left_out_of_one_epoch_comes_in_another():
    taken = np.concatenate([place for number in range(12) for place in seen(batches.epoch(FAMILIES, 4, 1, number))])
    assert set(taken.tolist()) == set(range(len(FAMILIES)))
