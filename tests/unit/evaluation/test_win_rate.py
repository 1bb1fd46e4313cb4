"""Two runs compared by a teacher that knows the truth: the better one wins, wherever it is shown and named."""

import pytest

from speed_ray.console import quality_report
from speed_ray.errors import UserError
from speed_ray.evaluation import win_rate
from speed_ray.stages.synthesize import Synthesize
from speed_ray.storage.run import EXAMPLES, TASKS


@pytest.fixture(scope="module")
def better(begin_alignment):
    """The run of `alignment`, but for its examples: these are the scripted teacher's own."""
    made = begin_alignment()
    made.make(Synthesize(made.recipe))
    return made.run


def test_the_better_run_wins_from_both_sides(alignment, better):
    ahead, behind = (
        win_rate.measure_win_rate(better, alignment.run, EXAMPLES),
        win_rate.measure_win_rate(alignment.run, better, EXAMPLES),
    )
    rows = {row["id"] for row in alignment.rows(EXAMPLES)}
    assert ahead.compared == len(rows) > 30 and ahead.unread == 0
    assert ahead.rate > 0.9 and behind.rate == pytest.approx(1 - ahead.rate)


def test_no_place_is_shown_first_more_often(alignment, better):
    recipe = better.recipe()
    shown = [
        win_rate._request(recipe, pair).context["order"][0]
        for pair in win_rate._pairs(better, alignment.run, EXAMPLES)
    ]
    assert 0.25 < sum(shown) / len(shown) < 0.75


def test_of_the_same_text_twice_nobody_is_asked(better):
    found = win_rate.measure_win_rate(better, better, EXAMPLES)
    assert (found.compared, found.unread) == (0, 0) and found.alike == 46
    assert "no example of this run could be compared" in str(quality_report.win_rate_tables(found, "the other"))


def test_what_was_compared_is_not_asked_again(alignment, better, monkeypatch):
    first = win_rate.measure_win_rate(better, alignment.run, EXAMPLES)
    monkeypatch.setattr("speed_ray.engines.build_engine", None)
    assert win_rate.measure_win_rate(better, alignment.run, EXAMPLES) == first


def test_a_verdict_that_cannot_be_read_counts_for_nobody(alignment, better):
    request = win_rate._request(better.recipe(), next(win_rate._pairs(better, alignment.run, EXAMPLES)))
    assert win_rate._won(request, None) is None


def test_runs_without_a_common_prompt_are_not_compared(alignment, begin_alignment, tmp_path):
    source = tmp_path / "topics.txt"
    source.write_text("Arts/Music\nHealth/Food\n")
    other = begin_alignment(f"topics.source={source}")
    other.make(Synthesize(other.recipe))
    with pytest.raises(UserError, match="have no prompt in common"):
        win_rate.measure_win_rate(alignment.run, other.run, EXAMPLES)


def test_both_runs_must_be_finished(alignment, run):
    with pytest.raises(UserError, match="examples is not finished"):
        win_rate.measure_win_rate(alignment.run, run, EXAMPLES)
    with pytest.raises(UserError, match="holds no examples"):
        win_rate.measure_win_rate(alignment.run, alignment.run, TASKS)
