"""Batches of contrastive training: of one kind where it can be, every row at most once, by the seed alone."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from speed_ray.training.contrastive import batches
from speed_ray.training.contrastive.batches import BatchGroup

RETRIEVAL, STS = BatchGroup("retrieval", 1, False), BatchGroup("sts", 1, False)
MATCHING, CLASSIFICATION = BatchGroup("matching", 0, False), BatchGroup("classification", 1, True)
FAMILIES = [RETRIEVAL] * 20 + [STS] * 13 + [MATCHING] * 5 + [CLASSIFICATION] * 9


def drawn(families, size, seed):
    members = {each: np.flatnonzero([family == each for family in families]) for each in set(families)}
    return batches.draw_batches(members, size, np.random.default_rng(seed))


def places(made):
    return [batch.places.tolist() for batch in made]


@given(st.lists(st.sampled_from([RETRIEVAL, STS, MATCHING, CLASSIFICATION]), max_size=60), st.integers(1, 9))
def test_rows_are_drawn_once_or_left_over(families, size):
    made, left = drawn(families, size, 1)
    taken = [place for batch in made for place in batch.places]
    rest = [place for places in left.values() for place in places]
    assert sorted([*taken, *rest]) == list(range(len(families)))
    assert all(families[place] == family for family, places in left.items() for place in places)


@given(st.lists(st.sampled_from([RETRIEVAL, STS, MATCHING, CLASSIFICATION]), max_size=60), st.integers(1, 9))
def test_batches_are_full_and_hold_only_rows_that_may_meet(families, size):
    made, _ = drawn(families, size, 1)
    for batch in made:
        together = {families[place] for place in batch.places}
        assert len(batch.places) == size
        assert len({family.negatives for family in together}) == 1
        assert {family.own_negatives_only for family in together} == {batch.own_negatives_only}
    groups = Counter((family.negatives, family.own_negatives_only) for family in families)
    assert len(made) == sum(count // size for count in groups.values()), "rows were left that would fill a batch"


def test_kinds_meet_only_in_what_is_left_of_them():
    made, _ = drawn(FAMILIES, 4, 1)
    mixed = [batch for batch in made if len({FAMILIES[place].kind for place in batch.places}) > 1]
    assert len(mixed) <= 1


def test_the_order_is_the_seeds_alone():
    assert places(drawn(FAMILIES, 4, 1)[0]) == places(drawn(FAMILIES, 4, 1)[0])
    assert places(drawn(FAMILIES, 4, 1)[0]) != places(drawn(FAMILIES, 4, 2)[0])
