"""Check that a run that costs too much is refused beforehand, or asked about on a terminal."""

import sys
from typing import Any

import pytest

from speed_ray import recipes
from speed_ray.errors import UserError
from speed_ray.planning.kept_plan import kept_plan
from speed_ray.planning.price_limit import ask_before, check_most
from speed_ray.planning.run_plan import plan_run
from speed_ray.recipes.schema import Recipe

ENDPOINT = "{engine: openai, model: m, base_url: 'http://localhost/v1'%s}"
PRICED = ", price: {input: 5, output: 15}, budget: {ask_above: %s}"


def recipe(more: str = "") -> Recipe:
    settings = [f"teacher={ENDPOINT % more}", "generator={engine: simulated}", "topics.limit=6", "prompts=null"]
    return recipes.load_recipe("miniature", [*settings, "synthesize.generator=base", "synthesize.revise=false"])


def test_a_plan_that_may_cost_more_is_refused() -> None:
    plan = plan_run(recipe(PRICED % 1))
    check_most(plan, plan.dollars.high)
    with pytest.raises(UserError, match="this may cost"):
        check_most(plan, plan.dollars.high / 2)


def test_what_has_no_price_is_refused_as_well() -> None:
    with pytest.raises(UserError, match="proposed_tasks costs cannot be told"):
        check_most(plan_run(recipe()), 1_000)


def test_the_command_ends_with_2(said) -> None:
    arguments = ["plan", "--recipe", "miniature", "--most", "0.000001", "--json"]
    for override in (f"teacher={ENDPOINT % (PRICED % 1)}", "generator={engine: simulated}", "topics.limit=3"):
        arguments += ["--set", override]
    code, words = said(*arguments)
    assert code == 2 and "--most 1e-06: this may cost" in words


@pytest.mark.parametrize(("limit", "answer"), [("1.0e-9", "yes"), ("1000", None)])
def test_a_run_begins_below_the_limit_or_after_a_yes(run, monkeypatch: pytest.MonkeyPatch, limit, answer) -> None:
    def reply(question: str) -> str:
        assert answer is not None, f"asked: {question}"
        return str(answer)

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr("builtins.input", reply)
    ask_before(recipe(PRICED % limit), run)
    assert kept_plan(run) is not None


def test_a_run_does_not_begin_after_a_no(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda question: "")
    with pytest.raises(UserError, match="nothing is spent"):
        ask_before(recipe(PRICED % "1.0e-9"), run)


def test_a_job_is_told_and_goes_on(run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def never(question: Any) -> str:
        raise AssertionError("nobody is there to ask")

    monkeypatch.setattr(sys.stdin, "isatty", lambda: False)
    monkeypatch.setattr("builtins.input", never)
    ask_before(recipe(PRICED % "1.0e-9"), run)
    assert "This is to cost" in capsys.readouterr().err
