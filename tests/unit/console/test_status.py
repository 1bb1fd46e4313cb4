"""Status: what the teacher took over all stages, and how many raw replies had their form."""

import signal
import sys
from pathlib import Path

import pytest

from speed_ray.console import status
from speed_ray.evaluation import parse_rate
from speed_ray.executor.usage import usage_by_artifact, usage_of
from speed_ray.recipes.engine_settings import OpenAIEngine, Price
from speed_ray.stages.draft import Draft
from speed_ray.storage.run import CANDIDATES, DRAFTS, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import REPLIES
from speed_ray.storage.spending import Usage


def said(run) -> dict[str, str]:
    """The lines about the teacher, by their first word."""
    lines = status.status_lines(run)
    begins = next(number for number, line in enumerate(lines) if line.startswith("teacher ("))
    return {line.split()[0]: line for line in lines[begins:]}


def test_the_teachers_calls_are_told_stage_by_stage(alignment):
    lines = said(alignment.run)
    assert list(lines) == ["teacher", "proposed_tasks", "drafts", "verdicts", "revisions", "in", "against"]
    for name in ("drafts", "verdicts", "revisions"):
        assert f" {sum(1 for _ in alignment.rows(name, REPLIES))} calls" in lines[name]
    total = usage_of(alignment.run, "teacher")
    assert total == sum(usage_by_artifact(alignment.run, "teacher").values(), Usage())
    assert f" {total.calls} calls" in lines["in"] and f"{total.prompt_tokens:,}" in lines["in"]


def test_the_paper_is_compared_without_brainstorming_and_dollars_come_from_the_recipes_price(alignment):
    price = Price(input=1_000.0, output=3_000.0)
    teacher = OpenAIEngine(engine="openai", model="big", base_url="http://localhost", price=price)
    recipe = alignment.recipe.model_copy(update={"teacher": teacher})
    asked = {
        "proposed_tasks": Usage(calls=9_000, prompt_tokens=7),
        "drafts": Usage(calls=4_500, prompt_tokens=2_000_000, output_tokens=1_200_000),
    }
    lines = status._teacher(
        recipe, asked, charged=Usage(calls=13_600, prompt_tokens=2_000_007, output_tokens=1_300_000)
    )
    assert lines[4].split()[:3] == ["charged", "13,600", "calls"]
    assert lines[-1].endswith("10.0% of its 45K calls, 10.0% of its 32M tokens")
    assert lines[2].endswith("$5,600.00")


def test_raw_replies_are_counted_by_their_form_alone(alignment):
    [weak] = parse_rate.measure_parse_rate(alignment.run.artifact(CANDIDATES))
    first = [row["text"] for row in alignment.rows(CANDIDATES, REPLIES) if row["trial"] == 0]
    assert (weak.model, weak.replies, weak.held_to_schema) == ("the generator", 230, False)
    assert weak.parsed == sum(text.startswith("{") for text in first) < 230
    [teacher] = parse_rate.measure_parse_rate(alignment.run.artifact(DRAFTS))
    assert teacher.parsed == teacher.replies == 46
    assert f"  the generator: {weak.parsed / 230:.1%} of 230 raw replies parsed" in status.status_lines(alignment.run)


class DraftHeldToSchema(Draft):
    def plan(self, run: Run) -> Plan:
        plan = super().plan(run)
        plan.identity["engine"]["structured_outputs"] = True  # as the plan of a vLLM says
        return plan


def test_a_share_that_a_schema_brought_about_is_marked(alignment, begin_alignment, weak):
    made = begin_alignment()
    made.make(DraftHeldToSchema(made.recipe), weak)
    [line] = [line for line in status.status_lines(made.run) if "raw replies parsed" in line]
    assert line.endswith("held to a JSON schema: this says nothing about the model")
    assert "held to" not in "".join(status.status_lines(alignment.run))


@pytest.mark.slow
def test_a_run_is_watched_until_ctrl_c(make_job, drive):
    job = make_job().begin().half_done(3)
    watching = [str(Path(sys.executable).with_name("speed-ray")), "status", job.uri, "--watch"]
    driver = drive(Watched(), program=watching)
    driver.wait_until(lambda: driver.said().count("examples: ") >= 1)
    job.half_done(2)
    driver.wait_until(lambda: "rows/s" in driver.said())
    driver.process.send_signal(signal.SIGINT)
    assert driver.ended() == 0, driver.said()
    assert "5 of 46 shards" in driver.said()
    assert "Traceback" not in driver.said()


class Watched:
    """A command that takes no more arguments."""

    def arguments(self, command: str) -> list[str]:
        return []


def test_rows_that_were_not_trained_on_are_said():
    rows = {"trained": {"retrieval": 3150, "sts": 12}, "left_out/classification": 7, "steps": 3}
    assert status.trained_rows({"facts": {"rows": rows}}) == [
        "  rows trained on, each once an epoch: retrieval 3,150 · sts 12",
        "  left out: classification 7",
    ]
    assert status.trained_rows({"facts": {}}) == []
