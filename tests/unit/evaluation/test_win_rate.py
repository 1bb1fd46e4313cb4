"""Two runs compared by a teacher that knows the truth: the better one wins, wherever it is shown and named."""

import asyncio
from dataclasses import replace

import pytest

from speed_ray.console import quality_report
from speed_ray.engines.base import BudgetExhausted, PromptTooLong
from speed_ray.engines.openai import OpenAI
from speed_ray.engines.scripted import ScriptedTeacher
from speed_ray.errors import Interrupted, UserError
from speed_ray.evaluation import quality, win_rate
from speed_ray.executor.reply_journal import Journal
from speed_ray.recipes.engine_settings import OpenAIEngine, ScriptedEngine
from speed_ray.stages.synthesize import Synthesize
from speed_ray.storage.run import EXAMPLES, TASKS
from speed_ray.storage.shards import Artifact
from speed_ray.storage.store import open_store
from tests.helpers.ledgers import ledger_of


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
    pairs = win_rate.pair_examples(better, alignment.run, EXAMPLES).pairs
    shown = [win_rate._request(recipe, pair).context["order"][0] for pair in pairs]
    assert 0.25 < sum(shown) / len(shown) < 0.75


def test_of_the_same_text_twice_nobody_is_asked(better):
    found = win_rate.measure_win_rate(better, better, EXAMPLES)
    assert (found.compared, found.unread) == (0, 0) and found.alike == 46
    assert "no example of this run could be compared" in str(quality_report.win_rate_tables(found, "the other"))


class FailingTeacher(ScriptedTeacher):
    """Answers so many requests, then has no budget left; some prompts are too long for it."""

    def __init__(self, answers, too_long=()):
        super().__init__(ScriptedEngine(engine="scripted", max_concurrency=4))
        self.answers, self.too_long, self.asked = answers, too_long, []

    async def generate(self, request):
        await asyncio.sleep(0)
        if request.row_id in self.too_long:
            raise PromptTooLong
        if len(self.asked) == self.answers:
            raise BudgetExhausted("budget used up")
        self.asked.append(request.row_id)
        await asyncio.sleep(0.01)
        return await super().generate(request)


@pytest.fixture
def teacher(monkeypatch):
    """Put a teacher that fails in the place of the run's."""

    def put(*arguments):
        engine = FailingTeacher(*arguments)
        monkeypatch.setattr("speed_ray.engines.build_engine", lambda *_: engine)
        return engine

    return put


@pytest.fixture
def asked_anew(better, monkeypatch, tmp_path):
    """Keep the replies of this test apart from those of others."""
    monkeypatch.setattr(win_rate, "REPLIES", f"evaluation/{tmp_path.name}")


def test_what_was_compared_is_not_asked_again(alignment, better, monkeypatch):
    first = win_rate.measure_win_rate(better, alignment.run, EXAMPLES)
    monkeypatch.setattr("speed_ray.engines.build_engine", None)
    assert win_rate.measure_win_rate(better, alignment.run, EXAMPLES) == first


@pytest.mark.usefixtures("asked_anew")
def test_replies_that_were_paid_for_are_kept_when_a_later_one_fails(alignment, better, teacher):
    before = teacher(7)
    with pytest.raises(Interrupted, match="budget used up"):
        win_rate.measure_win_rate(better, alignment.run, EXAMPLES)
    after = teacher(1_000)
    found = win_rate.measure_win_rate(better, alignment.run, EXAMPLES)
    assert len(before.asked) == 7 and not set(before.asked) & set(after.asked)
    assert found.compared == len(before.asked) + len(after.asked)


@pytest.mark.usefixtures("asked_anew")
def test_a_prompt_that_is_too_long_is_counted_and_ends_nothing(alignment, better, teacher):
    pairs = win_rate.pair_examples(better, alignment.run, EXAMPLES).pairs
    teacher(1_000, [pairs[0][0]["id"]])
    found = win_rate.measure_win_rate(better, alignment.run, EXAMPLES)
    assert found.unread == 1 and found.compared == len(pairs) - found.alike - 1


@pytest.mark.parametrize("change", ["seed=8", "slots={sts: {unit: phrase}, retrieval: {query_type: common}}"])
def test_only_examples_of_one_prompt_are_compared(alignment, begin_alignment, change):
    other = begin_alignment(change)
    other.make(Synthesize(other.recipe))
    found = win_rate.pair_examples(alignment.run, other.run, EXAMPLES)
    for pair in found.pairs:
        one, two = (win_rate._request(recipe, pair).messages for recipe in (alignment.recipe, other.recipe))
        assert sorted(_lines(one)) == sorted(_lines(two)) and pair[0]["instruction"] == pair[1]["instruction"]
    assert found.other_prompt > 5
    assert len(found.pairs) + found.other_prompt + found.missing == len(alignment.rows(EXAMPLES))


def _lines(messages):
    """All that a judge is told but for the examples, whose order is drawn with the seed, as that of guidelines is."""
    lines = [line for message in messages for line in message["content"].splitlines()]
    return [line for line in lines if not line.startswith("Example ")]


def test_tasks_of_one_id_may_be_of_other_words(alignment, better, monkeypatch):
    """Another teacher thinks up another task under the id that a topic, a kind and a number give."""
    read = quality.example_rows

    def rows(artifact, one_shard_in=1):
        other = {"instruction": "Given a noise, find the repair note"} if artifact.store is better.store else {}
        yield from ({**row, **other} if row["kind"] == "retrieval" else row for row in read(artifact, one_shard_in))

    whole = win_rate.pair_examples(alignment.run, better, EXAMPLES)
    monkeypatch.setattr(quality, "example_rows", rows)
    found = win_rate.pair_examples(alignment.run, better, EXAMPLES)
    kinds = [pair[0]["kind"] for pair in whole.pairs]
    assert whole.other_prompt == 0 and found.other_prompt == kinds.count("retrieval") > 5
    assert len(found.pairs) == len(kinds) - found.other_prompt


def test_pairs_that_are_left_out_are_said(alignment, better, monkeypatch):
    monkeypatch.setattr(win_rate, "PAIRS", 5)
    found = win_rate.measure_win_rate(better, alignment.run, EXAMPLES)
    assert found.compared + found.unread + found.alike == 5
    assert found.pairing.beyond == len(alignment.rows(EXAMPLES)) - 5 > 20
    found = replace(found, pairing=replace(found.pairing, other_prompt=3, missing=2))
    said = str(quality_report.win_rate_tables(found, "the other"))
    assert f"; {found.pairing.beyond} more pairs were not asked about" in said
    assert "; 3 examples were written for another prompt there; 2 examples have none beside them there" in said


def test_a_verdict_that_cannot_be_read_counts_for_nobody(alignment, better):
    request = win_rate._request(better.recipe(), win_rate.pair_examples(better, alignment.run, EXAMPLES).pairs[0])
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


def test_a_teacher_that_cannot_start_is_the_users_error(tmp_path):
    store = open_store(str(tmp_path))
    config = OpenAIEngine(engine="openai", model="m", base_url="http://127.0.0.1:9/v1", api_key_env="NO_SUCH_KEY")
    teacher = OpenAI(config, ledger_of(store))
    with pytest.raises(UserError, match="NO_SUCH_KEY"):
        asyncio.run(win_rate._ask(teacher, {}, Journal(Artifact(store, "asked"), 0, "attempt")))
