"""Scores of any scale teach alike, and scores that teach nothing are refused with the row or the range."""

import pyarrow as pa
import pytest

from speed_ray.errors import UserError
from speed_ray.recipes.training_settings import Embedder
from speed_ray.records import SCORED
from speed_ray.training.contrastive.judge_scores import measure_scale

SCORES = [(3.0, [1.0, 2.0]), (0.5, [0.5, -4.0]), (9.0, [])]


def judged(rows=SCORES, judge="a"):
    """One judge's scores of some rows."""
    return [
        {"judge": judge, "positive": positive, "further_positives": list(further), "negatives": negatives}
        for positive, negatives, *further in rows
    ]


def table(*judges, negatives=(2, 2, 0)):
    schema = pa.schema([SCORED.field(name) for name in ("id", "negatives", "further_positives", "scores")])
    rows = [
        {
            "id": f"row {index}",
            "negatives": ["-"] * count,
            "scores": [each[index] for each in judges],
            "further_positives": ["-"] * len(judges[0][index]["further_positives"]),
        }
        for index, count in enumerate(negatives)
    ]
    return pa.Table.from_pylist(rows, schema)


def scale(*tables, **settings):
    return measure_scale("the rows", tables, Embedder(model="m", **{"loss": "kl", **settings}))


def test_targets_do_not_depend_on_the_scale_of_the_scores():
    other = [(10 * positive + 7, [10 * negative + 7 for negative in negatives]) for positive, negatives in SCORES]
    (one, *_), (two, *_) = judged(), judged(other)
    first, second = (scale(table(judged(rows))).target([row]).scores for rows, row in ((SCORES, one), (other, two)))
    assert [score - first[0] for score in first] == pytest.approx([score - second[0] for score in second])


def test_a_higher_temperature_makes_targets_more_alike():
    row = judged()[:1]
    cold, warm = (scale(table(judged()), teacher_temperature=t).target(row).scores for t in (1.0, 2.0))
    assert warm == pytest.approx([score / 2 for score in cold])


def test_the_scale_is_that_of_all_shards():
    parts = [table(judged()[:2], negatives=(2, 2)), table(judged()[2:], negatives=(0,))]
    assert scale(*parts).unit == pytest.approx(scale(table(judged())).unit)


def test_margins_are_taken_as_they_are():
    assert scale(table(judged()), loss="margin_mse").target(judged()[:1]).scores == (3.0, 1.0, 2.0)


def test_weights_have_a_mean_of_one_and_follow_the_judge():
    measured = scale(table(judged()), loss="infonce", weight_by_score=True)
    sure, unsure, alone = (measured.target([row]).weight for row in judged())
    assert (sure + unsure) / 2 == pytest.approx(1) and sure > unsure
    assert alone == 1, "a row without negatives"


def test_further_positives_are_learnt_before_negatives_and_share_the_weight():
    rows = judged([(3.0, [1.0, 2.0], 2.5), SCORES[1]])
    measured = scale(table(rows, negatives=(2, 2)), loss="infonce", weight_by_score=True)
    assert scale(table(rows, negatives=(2, 2)), loss="margin_mse").target(rows[:1]).scores == (3.0, 2.5, 1.0, 2.0)
    weights = [measured.target([row]).weight for row in rows]
    assert sum(weights) / 2 == pytest.approx(1)
    assert weights[0] > measured.target(judged([(3.0, [1.0, 2.0, 2.5])])).weight


def test_one_of_several_judges_is_learnt_from():
    both = table(judged(), judged([(0.0, [1.0, 2.0])] * 2 + [(0.0, [])], "b"))
    assert scale(both, judge="b", loss="infonce", weight_by_score=True).judge == "b"
    with pytest.raises(UserError, match=r"embedder\.judge: the rows was scored by a, b"):
        scale(both)


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        ([(3.0, [1.0, float("nan")])], r"row row 1 \(and 1 more of its shard\) has a score of 'a' that is no finite"),
        ([(3.0, [1.0])], r"row row 1 .* must have a score of 'a' for each of its negatives"),
    ],
)
def test_a_row_with_broken_scores_is_named(broken, problem):
    with pytest.raises(UserError, match=problem):
        scale(table(judged([SCORES[0], *broken * 2]), negatives=(2, 2, 2)))


def test_a_judge_that_scored_no_row_is_told_with_those_that_did():
    with pytest.raises(UserError, match=r"row row 0 .* must have scores of 'c' once; there are \['a'\]"):
        scale(table(judged()), judge="c")


def test_a_judge_that_gives_one_score_to_all_is_refused():
    with pytest.raises(UserError, match=r"the judge 'a' gives all candidates of a query one score .* have 0\.5"):
        scale(table(judged([(0.5, [0.5, 0.5]), (0.7, [0.7, 0.7]), (0.1, [])])))


def test_probabilities_are_refused_as_margins_with_their_range():
    with pytest.raises(UserError, match=r"margin_mse .* which reach 100, .* lie between 0\.02 and 0\.98"):
        scale(table(judged([(0.98, [0.02, 0.5]), (0.9, [0.8, 0.3]), (0.4, [])])), loss="margin_mse")
