"""The report as a browser has it: its numbers are those of `verify` and `status`, and hostile rows do nothing."""

import pytest

import speed_ray
from speed_ray.console.status import artifact_statuses
from speed_ray.storage.run import REVISED_EXAMPLES
from speed_ray.storage.verify import verify

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page(alignment, open_page):
    return open_page(alignment.run, proven=True)


@pytest.fixture(scope="module")
def hostile_page(hostile, open_page):
    return open_page(hostile)


def numbers(page, selector):
    """The numbers of a row by what they count."""
    cells = page.eval_on_selector_all(f"{selector} [data-n]", "all => all.map(c => [c.dataset.n, c.textContent])")
    return {name: int(text.replace(",", "")) for name, text in cells if text.strip()}


def test_the_funnel_is_that_of_verify_and_status(page, alignment):
    standings = {each.artifact: each for each in artifact_statuses(alignment.run)}
    shown = page.eval_on_selector_all("[data-artifact]", "all => all.map(row => row.dataset.artifact)")
    assert shown == list(standings)
    for verdict in verify(alignment.run):
        row = numbers(page, f"[data-artifact={verdict.artifact}]")
        counts = standings[verdict.artifact].counts
        assert row["planned"] == verdict.planned == standings[verdict.artifact].planned
        assert row["accepted"] == verdict.accepted == counts.accepted
        assert row["rejected"] == verdict.rejected == counts.rejected
        assert row["records"] == counts.records and row["waiting"] == 0
        assert page.text_content(f"[data-verified={verdict.artifact}] span") == str(verdict)


def test_calls_and_tokens_are_those_of_status(page, alignment):
    for standing in artifact_statuses(alignment.run):
        row = numbers(page, f"[data-cost={standing.artifact}]")
        counts = standing.counts
        assert (row["calls"], row["prompt"], row["output"]) == (
            *(counts.calls, counts.prompt_tokens, counts.output_tokens),
        )


def test_every_reason_is_shown_with_samples_of_its_rejects(page, alignment):
    for standing in artifact_statuses(alignment.run):
        for reason, count in standing.counts.reasons.items():
            summary = page.locator("summary", has_text=f"of {count:,} rejected, {reason}").first
            samples = summary.locator("xpath=..").locator("article")
            assert samples.count() == min(count, 3)


def test_pages_and_filters_work_by_keyboard(page, alignment):
    page.fill("#search", "")
    page.select_option("#kind", "sts")
    assert page.locator(".example").count() == min(
        10, sum(r["kind"] == "sts" for r in alignment.rows(REVISED_EXAMPLES))
    )
    page.select_option("#kind", "")
    page.focus("#after")
    page.keyboard.press("Enter")
    assert page.text_content("#page").startswith("page 2 of")
    assert page.evaluate("document.activeElement.id") == "h-examples"


def test_a_page_asks_for_nothing_and_fits_a_phone(page):
    assert [url for url in page.asked if not url.endswith("/report.html")] == []
    assert page.said == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_in_the_frame_of_a_notebook_it_works_and_hostile_rows_reach_nothing(hostile, hostile_page):
    notebook = hostile_page.context.browser.new_page()
    notebook.set_content(speed_ray.Run(hostile.uri).report()._repr_html_())
    inside = notebook.frames[1]
    inside.fill("#search", "owned")
    assert inside.locator(".example").count() > 0
    assert inside.evaluate("window.owned") is None and notebook.evaluate("window.owned") is None
    assert inside.evaluate("window.origin") == "null"
    notebook.close()


def test_hostile_rows_run_no_script_and_load_nothing(hostile_page):
    page = hostile_page
    for summary in page.locator("summary").all()[:40]:
        summary.evaluate("summary => { summary.parentElement.open = true; }")
    page.fill("#search", "owned")
    assert page.locator(".example").count() > 0
    assert page.evaluate("window.owned") is None
    assert [url for url in page.asked if not url.endswith("/report.html")] == []
    assert page.said == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    made = "img, iframe, object, embed, link, base, form[action], a[href^=javascript], svg [onload], [onerror]"
    assert page.locator(made).count() == 0
    assert page.locator("script").count() == 2 and page.locator("style").count() == 1
    shown = page.evaluate("document.body.innerText")
    assert "window.owned = 1" in shown and "{{ 7 * 7 }}" in shown
    assert not set(shown) & set("\x1b\x07\x00\u202e\u2066")


def test_a_script_that_came_into_the_page_would_not_run(hostile_page):
    hostile_page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.owned = 6";
            const image = document.createElement("img");
            image.src = "http://127.0.0.1:9/y";
            document.body.append(script, image);
        }"""
    )
    assert hostile_page.evaluate("window.owned") is None
    assert any("Content Security Policy" in line for line in hostile_page.said)
