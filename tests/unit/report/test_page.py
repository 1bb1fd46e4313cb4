"""The report as a file: small whatever its rows are, and written of what can be read."""

import json
import re
from pathlib import Path

import pytest
import yaml
from selectolax.lexbor import LexborHTMLParser

import speed_ray
from speed_ray.console.status import artifact_statuses, status_lines
from speed_ray.errors import UserError
from speed_ray.planning.kept_plan import keep_plan
from speed_ray.report import drawn_examples, page
from speed_ray.storage.run import EXAMPLES, PROPOSED_TASKS, REVISED_EXAMPLES, TASKS, Run
from speed_ray.storage.shards import REJECTS
from speed_ray.storage.verify import verify


@pytest.fixture
def job(make_job):
    """A run on disk whose examples are half written."""
    return make_job().begin().half_done(7)


def faults(html: str) -> str:
    found = LexborHTMLParser(html).css_first("#faults")
    return found.text() if found else ""


def test_a_half_written_run_is_told_as_it_stands(job):
    told = LexborHTMLParser(page.render_report(job.run))
    row = told.css_first(f"[data-artifact={EXAMPLES}]")
    assert row.css_first("[data-n=planned]").text() == "460" and row.css_first("[data-n=waiting]").text() == "390"
    assert told.css_first(".state").text() == "running"
    assert not told.css("#faults")


def test_the_numbers_are_those_of_verify_and_status(alignment):
    told = LexborHTMLParser(page.render_report(alignment.run, proven=True))
    standings = {each.artifact: each for each in artifact_statuses(alignment.run)}
    assert [row.attributes["data-artifact"] for row in told.css("[data-artifact]")] == list(standings)
    for verdict in verify(alignment.run):
        counts = standings[verdict.artifact].counts
        funnel, cost = (numbers(told, f"[{kind}={verdict.artifact}]") for kind in ("data-artifact", "data-cost"))
        assert funnel["planned"] == verdict.planned == standings[verdict.artifact].planned
        assert funnel["accepted"] == verdict.accepted == counts.accepted
        assert funnel["rejected"] == verdict.rejected == counts.rejected
        assert (funnel["records"], funnel["waiting"]) == (counts.records, 0)
        assert [cost[name] for name in ("calls", "prompt", "output")] == [
            *(counts.calls, counts.prompt_tokens, counts.output_tokens)
        ]
        assert told.css_first(f"[data-verified={verdict.artifact}] span").text() == str(verdict)


def numbers(told: LexborHTMLParser, selector: str) -> dict[str, int]:
    """The numbers of a row by what they count."""
    cells = {cell.attributes["data-n"]: cell.text().strip() for cell in told.css(f"{selector} [data-n]")}
    return {name: int(text.replace(",", "")) for name, text in cells.items() if text}


def test_planned_spent_and_left_are_those_of_status(job):
    recipe = job.examples.parent / "recipe.yaml"
    endpoint = {"engine": "openai", "model": "m", "base_url": "http://localhost/v1"}
    endpoint |= {"price": {"input": 9, "output": 90}}
    recipe.write_text(yaml.safe_dump(yaml.safe_load(recipe.read_text()) | {"generator": endpoint}))
    tokens = {"prompt_tokens": 900_000, "output_tokens": {"expected": 30.4}}  # of replies, more is spent already
    roles = {PROPOSED_TASKS: ("teacher", None), EXAMPLES: ("generator", {"expected": 1234.5})}
    stages = [
        {"stage": name, "role": role, "calls": 460, "dollars": dollars, **tokens}
        for name, (role, dollars) in roles.items()
    ]
    keep_plan(job.run, {"stages": stages})
    rows = LexborHTMLParser(page.render_report(job.run)).css("[data-spending]")
    assert [row.attributes["data-spending"] for row in rows] == [*roles, "in all"]
    for line, row in zip(status_lines(job.run)[-3:], rows, strict=True):
        numbers = [cell.text() for cell in row.css("[data-n]")]
        assert numbers == re.findall(r"\$?[0-9][0-9,.]*[0-9]|[0-9]", line) and len(numbers) >= 9
    assert "460 calls, spent 70, left 390" in status_lines(job.run)[-2]


def test_a_damaged_file_is_named_and_the_rest_is_told(job):
    (job.examples / "commits/00000003.0.json").write_text("{")
    html = page.render_report(job.run, proven=False)
    assert f"{EXAMPLES}/commits/00000003.0.json is damaged" in faults(html)
    rows = {row.attributes["data-artifact"] for row in LexborHTMLParser(html).css("[data-artifact]")}
    assert {TASKS} <= rows and EXAMPLES not in rows
    assert LexborHTMLParser(html).css_first(".state").text() == "unreadable"


def test_damaged_examples_are_named_and_the_others_shown(job):
    commit = json.loads((job.examples / "commits/00000000.0.json").read_bytes())
    path = job.examples / commit["files"]["records"]["path"]
    path.write_bytes(path.read_bytes()[:-40])
    told = LexborHTMLParser(page.render_report(job.run, proven=True))
    assert commit["files"]["records"]["path"] in told.css_first("#faults").text()
    assert told.css_first(".state").text() == "damaged"
    assert "FAILS" in told.css_first(f"[data-verified={EXAMPLES}]").text()
    assert len(json.loads(told.css_first("#data").text())["examples"]) == 60


def test_a_recipe_of_another_version_costs_the_prices_alone(job):
    (job.examples.parent / "recipe.yaml").write_text("seed: 0\na_key_of_old: 3\n")
    html = page.render_report(job.run)
    assert "recipe.yaml" in faults(html)
    assert LexborHTMLParser(html).css(f"[data-artifact={EXAMPLES}]")


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not a run"):
        page.render_report(Run(str(tmp_path)))


def test_hostile_texts_are_escaped_and_cut(hostile):
    html = page.render_report(hostile)
    assert len(html.encode()) < page.MAX_BYTES
    assert "(cut: 1,080,000 characters)" in html
    for attack in ("<img", "<iframe", "<base", "@import 'http", "\x1b", "\u202e", "onload=window.owned=3>"):
        assert attack not in html
    assert html.count("<script") == 2 and html.count("</script>") == 2


def test_the_page_stays_small_by_showing_fewer_examples(alignment, monkeypatch):
    monkeypatch.setattr(page, "MAX_BYTES", 0)
    monkeypatch.setattr(page, "FEWEST_BYTES", 40_000)
    data = LexborHTMLParser(page.render_report(alignment.run)).css_first("#data").text()
    assert 0 < len(json.loads(data)["examples"]) < 46
    assert len(data.encode()) < 40_000


def test_of_many_rows_shards_at_even_distances_are_read(alignment, monkeypatch):
    monkeypatch.setattr(drawn_examples, "ENOUGH", 15)
    told = LexborHTMLParser(page.render_report(alignment.run))
    made = told.css_first("#made p").text()
    assert made.startswith(f"{REVISED_EXAMPLES}: one shard in ")
    assert len(alignment.rows(REVISED_EXAMPLES, REJECTS)) == int(
        told.css_first(f"[data-artifact={REVISED_EXAMPLES}] [data-n=rejected]").text()
    ), "counts are of all shards all the same"


def test_the_report_is_written_into_the_run_or_beside(job, said, tmp_path):
    code, words = said("report", job.uri)
    assert (code, words.strip()) == (0, f"{job.uri}/report.html")
    said("report", job.uri, "--to", str(tmp_path / "new/r.html"))
    assert (tmp_path / "new/r.html").read_text().startswith("<!doctype html>")
    assert said("report", job.uri, "--to", str(tmp_path / "new/r.html/x"))[0] == 2


@pytest.mark.parametrize("fixture", ["job", "hostile"])
def test_a_notebook_is_given_a_frame_and_nothing_else(fixture, request):
    shown = speed_ray.Run(request.getfixturevalue(fixture).uri).report()
    [frame] = LexborHTMLParser(shown._repr_html_()).body.iter()
    assert frame.tag == "iframe" and not list(frame.iter())
    assert (frame.attributes["title"], frame.attributes["srcdoc"]) == (shown.path, shown.html)
    assert frame.attributes["sandbox"] == "allow-scripts"  # not allow-same-origin, which would give it the notebook
    assert Path(shown.path).read_text() == shown.html


def test_a_picture_of_topics_is_drawn_where_it_tells_topics_apart():
    assert page._tells_apart({"retrieval": {"bees": 5, "lamps": 5}})
    assert not page._tells_apart({"retrieval": {"bees": 5, "1,244 others": 1_300}})
    assert not page._tells_apart({"retrieval": {"bees": 5}}) and not page._tells_apart({})
