"""Pack examples with their whole way back as data for the page's script, within a number of bytes."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2.utils import htmlsafe_json_dumps

from speed_ray.records import Row
from speed_ray.report.drawn_examples import DrawnExamples, choose_few
from speed_ray.report.funnel import Leg
from speed_ray.report.lineage import Lineage, Step
from speed_ray.report.shown_text import LONG, NAME, shown_text
from speed_ray.report.unreadable import Faults
from speed_ray.storage.run import Run

SHOWN, NEGATIVES = 300, 10  # examples, and negatives of each


class Lines:
    """Holds the different lines of texts: prompts of one template have most of theirs in common."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def pack(self, text: str) -> list[int]:
        """Return a text as numbers of its lines."""
        return [self.numbers.setdefault(line, len(self.numbers)) for line in text.split("\n")]


def pack_examples(
    run: Run, legs: Mapping[str, Leg], drawn: DrawnExamples, faults: Faults, most_bytes: int
) -> dict[str, Any]:
    """Pack as many of the chosen examples as fit; a page with fewer says so."""
    chosen = choose_few(drawn, SHOWN)
    lineage = Lineage(run, legs, drawn.leg, {str(row["id"]): (row, place) for row, place in chosen})
    faults.found.update({f"ways back: {what}": why for what, why in lineage.faults.found.items()})
    lines, packed, size = Lines(), [], 0
    for row, _ in chosen:
        known = len(lines.numbers)
        steps = faults.read(f"the way back of {shown_text(row['id'])}", [], lineage.steps, row)
        example = _packed(row, steps, lines)
        size += json_bytes(example) + json_bytes(list(lines.numbers)[known:])
        if size > most_bytes:
            lines.numbers = dict(list(lines.numbers.items())[:known])
            break
        packed.append(example)
    return {"examples": packed, "lines": list(lines.numbers)}


def as_json(tree: Any) -> str:
    """Serialize for a script element: `<`, `>`, `&` and `'` are escaped, so that no text can end the element."""
    return htmlsafe_json_dumps(tree, dumps=json.dumps, ensure_ascii=False, separators=(",", ":"))


def json_bytes(tree: Any) -> int:
    """Count the bytes of a tree in the page."""
    return len(as_json(tree).encode(errors="replace"))


def _packed(row: Row, steps: Sequence[Step], lines: Lines) -> dict[str, Any]:
    names = {name: shown_text(row.get(name) or "") for name in ("id", "kind", "language", "topic", "split", "model")}
    texts = {name: lines.pack(shown_text(row.get(name) or "", LONG)) for name in ("instruction", "query", "positive")}
    negatives = [lines.pack(shown_text(text, LONG)) for text in (row.get("negatives") or [])[:NEGATIVES]]
    packed = [
        {**step, "fields": [(shown_text(name, 2 * NAME), lines.pack(text)) for name, text in step["fields"]]}
        for step in steps
    ]
    return {**names, **texts, "negatives": negatives, "steps": packed}
