"""Write a run's report as one HTML file: numbers as `status` and `quality` have them, charts, and examples.

All text of it was written by models and strangers. Jinja escapes what stands in the page, the examples are data that a
script puts in as text alone, and the page's policy lets nothing run or load but that script and that style.
"""

import base64
import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from speed_ray import __version__
from speed_ray.console.judge_report import GateRefusals, count_refusals
from speed_ray.console.spending_report import COUNTED, read_spending
from speed_ray.console.status import WATCH_SECONDS
from speed_ray.errors import UserError
from speed_ray.evaluation.quality import BUCKETS, Quality, measure_quality
from speed_ray.executor.usage import ARTIFACTS_OF, usage_of
from speed_ray.recipes.schema import Recipe
from speed_ray.report import charts
from speed_ray.report.drawn_examples import ENOUGH, DrawnExamples, count_topics, draw_examples, shards_apart
from speed_ray.report.duplicate_clusters import read_clusters
from speed_ray.report.evaluation_scores import read_scores
from speed_ray.report.funnel import Leg, describe_leg, read_legs
from speed_ray.report.judged_margins import measure_judged_margins
from speed_ray.report.run_picture import draw_run
from speed_ray.report.shown_examples import as_json, pack_examples
from speed_ray.report.shown_text import NAME, TEXT, most, shown_text
from speed_ray.report.training_curves import read_trainings
from speed_ray.report.unreadable import Faults
from speed_ray.storage.run import ARTIFACTS, Run
from speed_ray.storage.shards import Counts
from speed_ray.storage.spending import Spending, Usage
from speed_ray.storage.verify import VerifyResult, verify
from speed_ray.text.durations import spell_seconds

MAX_BYTES = 2_000_000  # of the page
FEWEST_BYTES = 200_000  # that examples may take, whatever the rest does
QUIET = 300.0  # seconds without a commit after which nobody seems to drive the run
DAMAGED = "damaged"  # the state of a run
HERE = Path(__file__).parent
LANGUAGES = 20


def render_report(run: Run, proven: bool = False) -> str:
    """Return the report of a run as HTML; with `proven` it holds what `verify` finds, which reads every file.

    What cannot be read is named in the page. Raises UserError where the folder is no run.
    """
    faults = Faults()
    legs = read_legs(run, faults)
    if not legs and not faults.found:
        run.recipe()  # says so, when the folder is no run
        raise UserError(f"{run.uri} was begun, but nothing is planned in it yet. Run its job again.")
    shown = _content(run, legs, faults, proven)
    drawn = faults.read("the drawn examples", None, draw_examples, legs, faults)
    shown |= _of_examples(run, drawn, legs, faults)
    style, script = (HERE.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    render = partial(
        _template().render,
        **shown,
        style=style,
        script=script,
        policy=f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'",
    )
    rest = len(render(faults=faults.found, data="", examples=0).encode(errors="replace"))
    packed: dict[str, Any] = {"examples": [], "lines": []}
    if drawn:
        room = max(FEWEST_BYTES, MAX_BYTES - rest - 20_000)  # for faults that are found on the way
        by_name = {leg.name: leg for leg in legs}
        packed = faults.read("the examples to look through", packed, pack_examples, run, by_name, drawn, faults, room)
    if faults.found and shown["state"][0] != DAMAGED:
        render = partial(render, state=("unreadable", "Parts of the run cannot be read: they are named below."))
    html = render(faults=faults.found, data=as_json(packed), examples=len(packed["examples"]))
    return html.encode(errors="replace").decode()  # halves of characters, which no file can hold


def write_report(run: Run, file: Path | None = None, proven: bool = False) -> str:
    """Write the report into a file, or into the run's own folder, and return where it is."""
    return put_report(run, render_report(run, proven), file)


def put_report(run: Run, html: str, file: Path | None = None) -> str:
    """Write a report that is rendered already into a file, or into the run's own folder, and return where it is."""
    data = html.encode()
    if file is None:
        run.store.put("report.html", data)
        return f"{run.uri}/report.html"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_name(f".{file.name}.part")
        fresh.write_bytes(data)
        fresh.replace(file)  # a browser never reads half of it
    except OSError as error:
        raise UserError(f"--to {file} cannot be written: {error}") from None
    return str(file)


def watch_report(run: Run, file: Path | None = None) -> Iterator[str]:
    """Write the report again and again, a fifth of the time at most, and yield where it is."""
    while True:
        began = time.monotonic()
        yield write_report(run, file)
        time.sleep(max(WATCH_SECONDS, 4 * (time.monotonic() - began)))


def _template() -> Any:
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals |= {"bar": charts.share_bar, "histogram": charts.histogram, "buckets": _buckets()}
    environment.filters |= {"number": "{:,}".format, "spell": spell_seconds}
    return environment.get_template("page.html.jinja")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _buckets() -> list[str]:
    return [*(f"≤{bound}" for bound in BUCKETS), f">{BUCKETS[-1]}"]


def _content(run: Run, legs: Sequence[Leg], faults: Faults, proven: bool) -> dict[str, Any]:
    """Return all that the page tells of the run but its examples."""
    recipe = faults.read("recipe.yaml", None, run.recipe)
    total = sum((leg.standing.counts for leg in legs), Counts())
    rows = [describe_leg(leg, recipe, faults) for leg in legs]
    priced = [row["dollars"] for row in rows if row["dollars"] is not None]
    verdicts = faults.read("the proof by verify", [], _proof, run) if proven else None
    return {
        "uri": shown_text(run.uri, TEXT),
        "written": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
        "version": __version__,
        "state": _state(legs, [each["artifact"] for each in verdicts or () if each["damaged"]]),
        "verdicts": verdicts,
        "picture": faults.read("the picture", "", draw_run, run, legs, faults),
        "legs": rows,
        "total": total,
        "dollars": sum(priced) if priced else None,
        "counted": COUNTED,
        "spending": faults.read("what was planned", [], read_spending, run, recipe) if recipe else [],
        "charged": faults.read("what was charged", [], _charged, run, recipe),
        "clusters": read_clusters(legs, faults),
        "trainings": read_trainings(run, faults),
        "scores": faults.read("the scores", [], read_scores, run),
        "expected": [name for name in ARTIFACTS if name not in {leg.name for leg in legs}],
    }


def _state(legs: Sequence[Leg], damaged: Sequence[str]) -> tuple[str, str]:
    """Return a word for how the run stands, and a sentence."""
    if damaged:
        return DAMAGED, f"Files were damaged after they were made: {', '.join(damaged)}."
    open_legs = [leg for leg in legs if not leg.standing.published]
    if not open_legs:
        return "whole", "All that was begun is published."
    names = ", ".join(leg.name for leg in open_legs)
    ended = max((commit.finished for leg in legs for commit in leg.commits), default=0.0)
    if time.time() - ended < QUIET:
        return "running", f"Being made: {names}."
    return "stopped", f"Not finished: {names}. Nothing was committed for five minutes."


def _proof(run: Run) -> list[dict[str, Any]]:
    return [_verdict(verdict) for verdict in verify(run)]


def _verdict(verdict: VerifyResult) -> dict[str, Any]:
    problems = [shown_text(problem, TEXT) for problem in verdict.problems[:20]]
    said = {"artifact": verdict.artifact, "said": str(verdict), "problems": problems}
    return {**said, "holds": verdict.holds, "damaged": bool(verdict.damaged)}


def _charged(run: Run, recipe: Recipe | None) -> list[tuple[str, str, Usage, float | None]]:
    """List each role that has a balance: its model, what it was charged, and the dollars by the recipe's price."""
    found = []
    for role in ARTIFACTS_OF if recipe else ():
        engine = getattr(recipe, role)
        charged = Spending(run.store, role, before=partial(usage_of, run, role)).balance().charged
        price = getattr(engine, "price", None)
        if charged != Usage():
            found.append((role, shown_text(engine.model, NAME), charged, charged.dollars(price) if price else None))
    return found


def _of_examples(run: Run, drawn: DrawnExamples | None, legs: Sequence[Leg], faults: Faults) -> dict[str, Any]:
    """Return what is told of the drawn examples: their quality, topics and margins."""
    if drawn is None:
        return {"drawn": None, "quality": None, "tree": "", "margins": [], "gates": [], "gates_elsewhere": False}
    name = drawn.leg.name
    small = all(leg.standing.counts.records <= ENOUGH for leg in legs)
    quality = faults.read(f"quality of {name}", None, measure_quality, run, name, shards_apart(drawn.leg))
    topics = faults.read("kinds and topics", {}, count_topics, drawn)
    return {
        "drawn": {"name": name, "rows": len(drawn.rows), "one_shard_in": drawn.one_shard_in},
        "quality": quality,
        "languages": most(quality.languages, LANGUAGES) if quality else [],
        "words": _words(quality) if quality else [],
        "topics": topics,
        "tree": charts.treemap(topics) if _tells_apart(topics) else "",
        "margins": faults.read("margins", [], measure_judged_margins, drawn),
        "gates": faults.read("gates", [], _gates, run) if small else [],
        "gates_elsewhere": not small and any(leg.name == "scored_examples" for leg in legs),
    }


def _tells_apart(topics: Mapping[str, Mapping[str, int]]) -> bool:
    """Test whether kinds and topics make a picture: not where one area takes most of it, as all other documents do."""
    counts = [count for inside in topics.values() for count in inside.values()]
    return bool(counts) and max(counts) <= sum(counts) / 2


def _gates(run: Run) -> list[GateRefusals]:
    return [each for each in count_refusals(run) if each.numbers]


def _words(quality: Quality) -> list[tuple[str, str, list[int]]]:
    kinds = sorted(quality.words.items())[:LANGUAGES]
    return [(shown_text(kind), side, counts) for kind, sides in kinds for side, counts in sides.items()]
