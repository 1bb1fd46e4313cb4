"""A run of hostile rows, and a browser to look at its report."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from speed_ray.records import EXAMPLE, TASK, TOPIC
from speed_ray.report.page import write_report
from speed_ray.stages.driver_stage import RowResult, publish_rows, reject
from speed_ray.storage.run import EXAMPLES, TASKS, TOPICS, Run
from speed_ray.storage.shard_plan import Plan

CHROMIUM = Path("/usr/bin/chromium")
ATTACKS = (
    "</script><script>window.owned = 1</script>",
    "<img src='http://127.0.0.1:9/x.png' onerror='window.owned = 2'><iframe src='http://127.0.0.1:9/'></iframe>",
    "\"'><svg onload=window.owned=3><a href='javascript:window.owned=4'>x</a>",
    "<!-- ]]> <style>@import 'http://127.0.0.1:9/x.css'; body { display: none }</style>",
    "{{ 7 * 7 }}{% raw %} \x1b[2J\x1b]0;owned\x07 \u202etxt.exe\u2066 \u2028 \x00",
    "<base href='http://127.0.0.1:9/'><meta http-equiv=refresh content='0; url=http://127.0.0.1:9/'>",
)
LONG = "<b>long</b> " * 90_000  # 1 MB


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose every text attacks, in a folder whose name does too."""
    run = Run(str(tmp_path_factory.mktemp("hostile") / "<img src=x onerror=window.owned=5>"))
    topics = [
        RowResult(f"t{number}", {"id": f"t{number}", "topic": attack, "source": attack}, None)
        for number, attack in enumerate(ATTACKS)
    ]
    publish_rows(run.artifact(TOPICS), Plan(TOPICS, len(topics), 2), TOPIC, iter(topics))
    tasks = [RowResult(f"k{number}", {**_made("k", number), "task": attack}, None) for number, attack in _texts()]
    publish_rows(run.artifact(TASKS), Plan(TASKS, len(tasks), 3, input=TOPICS), TASK, iter(tasks))
    rows = [RowResult(f"e{number}", _example(number, text), None) for number, text in _texts()]
    rejects = [reject(f"r{number}", "", EXAMPLES, text[:9_000], text, text, text) for number, text in _texts()]
    plan = Plan(EXAMPLES, len(rows) + len(rejects), 5, input=TASKS)
    publish_rows(run.artifact(EXAMPLES), plan, EXAMPLE, iter([*rows, *rejects]))
    return run


def _texts() -> list[tuple[int, str]]:
    return list(enumerate([*ATTACKS, LONG]))


def _made(prefix: str, number: int) -> dict[str, str]:
    row_id = f"{prefix}{number}"
    attack = ATTACKS[number % len(ATTACKS)]
    above = f"t{number % len(ATTACKS)}" if prefix == "k" else f"k{number}"
    return {"id": row_id, "row_id": row_id, "parent_id": above, "kind": attack, "topic": attack, "model": attack}


def _example(number: int, text: str) -> dict[str, object]:
    texts = dict.fromkeys(("language", "instruction", "query", "positive"), text)
    return {**_made("e", number), **texts, "negatives": [text, text]}


@pytest.fixture(scope="module")  # Playwright's loop runs until then: what calls asyncio.run is to come before or after
def open_page(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """Open a run's report in a browser; all that a page asks for, beside itself, is kept in `page.asked`."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the driver of the browser is not installed")
    if not CHROMIUM.exists():
        pytest.skip("there is no /usr/bin/chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        options = ["--no-sandbox", "--disable-gpu"]
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=options, timeout=300_000)

        def opened(run: Run, **options: object):
            file = tmp_path_factory.mktemp("report") / "report.html"
            write_report(run, file, **options)
            page = browser.new_page(viewport={"width": 390, "height": 800})
            page.set_default_timeout(120_000)
            page.asked, page.said = [], []
            page.on("request", lambda request: page.asked.append(request.url))
            page.on("console", lambda message: page.said.append(message.text))
            page.on("pageerror", lambda error: page.said.append(str(error)))
            page.on("dialog", lambda dialog: page.said.append("a dialog"))
            page.goto(file.as_uri())
            return page

        yield opened
        browser.close()
