"""The rule by which a list's best and worst are named: each of its terms decides alone, and says so."""

import pytest

from speed_ray.curation.best_and_worst import Candidate, choose
from speed_ray.curation.passage_ranks import Standing
from speed_ray.records import Rejected


def candidate(rank: int = 1, margin: float = 0.0, near: int = 0, copied: float = 0.0, words: int = 8) -> Candidate:
    return Candidate(Standing(rank, margin, near), copied, words)


USUAL = candidate()


@pytest.mark.parametrize(
    ("worse", "term"),
    [
        (candidate(rank=2), "rank"),
        (candidate(margin=-1.0), "margin"),
        (candidate(near=3), "near"),
        (candidate(copied=0.25), "copied"),
        (candidate(words=16), "length"),
        (candidate(words=4), "length"),
    ],
)
def test_each_term_alone_makes_a_query_worse_and_is_named(worse: Candidate, term: str) -> None:
    choice = choose([USUAL, worse, USUAL])
    assert (choice.best, choice.worst) == (0, 1)
    assert choice.reason.endswith(f"worth 1.00 more, most of it by {term}")


def test_the_reason_has_the_counts_of_both() -> None:
    choice = choose([candidate(57, -2.5, 12, 0.0, 4), candidate(1, 0.8, 2, 0.1, 9)])
    assert choice.reason.startswith(
        "best: rank 1, margin +0.80, 2 passages nearly as near, 10% copied, 9 words; "
        "worst: rank 57, margin -2.50, 12 passages nearly as near, 0% copied, 4 words; "
    )


def test_a_wide_margin_is_no_better_than_a_clear_one() -> None:
    wide, clear = candidate(margin=9.0, copied=0.3), candidate(margin=1.0)
    assert choose([wide, clear]).best == 1


def test_a_passage_that_is_far_away_is_no_worse_than_one_at_1024() -> None:
    with pytest.raises(Rejected, match="none_found"):
        choose([candidate(rank=5000), candidate(rank=90_000)])
    far = choose([USUAL, candidate(rank=1024, copied=0.1), candidate(rank=9_000)])
    assert far.worst == 1


@pytest.mark.parametrize(
    ("candidates", "reason"),
    [
        ([USUAL, candidate(margin=-0.9)], "no_preference"),
        ([USUAL, USUAL], "no_preference"),
        ([candidate(rank=21), candidate(rank=900)], "none_found"),
    ],
)
def test_a_list_without_a_clear_or_a_good_best_is_rejected(candidates: list[Candidate], reason: str) -> None:
    with pytest.raises(Rejected) as rejected:
        choose(candidates)
    assert rejected.value.reason == reason


def test_of_equals_the_first_is_named() -> None:
    choice = choose([candidate(rank=9), USUAL, candidate(rank=9), USUAL])
    assert (choice.best, choice.worst) == (1, 0)
