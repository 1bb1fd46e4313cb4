"""Each gate's number, when there is none, and what it refuses."""

import pytest

from speed_ray.curation import gates
from speed_ray.recipes.score_settings import Gates

OFF = {"relatedness": None, "order": None, "meaning": None, "copied": None}


def judged(kind="retrieval", reference=(0.6, 0.5), words=(3.0, 5.0), others=1000, deviation=0.1):
    return {
        "id": "row", "kind": kind, "background": others, "neighbours": [], "gains": [], "copied": 0.25,
        "judged": [
            {"judge": "bm25", "scores": list(words), "mean": 0.0, "deviation": 1.0},
            {"judge": "reference", "scores": list(reference), "mean": 0.1, "deviation": deviation},
        ],
    }  # fmt: skip


def numbers(row, judge="reference", negatives=1, grounded=False, positive=0, weight=0.3):
    return gates.gate_numbers(row, gates.all_scores(row, weight), judge, negatives, grounded, positive)


def test_relatedness_is_in_deviations_above_other_texts():
    assert numbers(judged()).relatedness == pytest.approx(5)
    assert numbers(judged(), positive=1).relatedness == pytest.approx(4)


@pytest.mark.parametrize("row", [judged(others=29), judged(deviation=0.0)])
def test_few_texts_or_equal_ones_tell_nothing_of_relatedness(row):
    assert numbers(row).relatedness is None


def test_without_a_reference_words_alone_say_what_is_in_order():
    row = judged()
    row["judged"].pop()
    found = numbers(row, judge="bm25")
    assert (found.relatedness, found.order, found.meaning, found.copied) == (None, -2.0, None, 0.25)


def test_the_deciding_judge_says_what_is_in_order():
    assert numbers(judged()).order == pytest.approx(0.1)
    assert numbers(judged(), judge="mixture").order == pytest.approx(1 - 0.3 * 2)


def test_the_last_of_mined_negatives_counts_and_the_best_of_written_ones():
    row = judged(reference=(0.6, 0.7, 0.2), words=(0, 0, 0))
    assert numbers(row, negatives=2).order == pytest.approx(-0.1)
    assert numbers(row, negatives=2, grounded=True).order == pytest.approx(0.4)


def test_neighbours_are_no_negatives():
    assert numbers(judged(reference=(0.6, 0.5, 0.9), words=(0, 0, 0))).order == pytest.approx(0.1)


def test_likenesses_are_told_by_the_reference_and_not_by_words():
    found = numbers(judged(kind="sts"), judge="mixture")
    assert found.order is None and found.meaning == pytest.approx(0.1)


def test_no_judge_says_which_label_is_right():
    found = numbers(judged(kind="classification"))
    assert (found.order, found.meaning) == (None, None) and found.relatedness == pytest.approx(5)


def test_without_negatives_there_is_no_order():
    assert numbers(judged(), negatives=0).order is None


@pytest.mark.parametrize(
    ("bounds", "reason"),
    [
        ({"relatedness": 5.1}, "gate_relatedness"),
        ({"order": 0.2}, "gate_order"),
        ({"copied": 0.25}, "gate_copied"),
        ({"relatedness": 4.9, "order": 0.05, "copied": 0.26, "meaning": 9.0}, None),
    ],
)
def test_a_bound_refuses_with_the_number(bounds, reason):
    found = gates.refusal(numbers(judged()), Gates(**{**OFF, **bounds}))
    assert (found and found[0]) == reason
    if found:
        [key] = bounds
        assert found[1].endswith(f"score.gates.{key} is {bounds[key]:g}")


def test_the_detail_has_the_number():
    assert gates.refusal(numbers(judged()), Gates(relatedness=6.0))[1].startswith(
        "the positive's cosine with the query lies +5.00 standard deviations above"
    )
