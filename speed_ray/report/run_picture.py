"""Draw a run: its artifacts and models as boxes with their counts, and arrows from what each was made of."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from speed_ray.console.status import MODELS
from speed_ray.report.charts import element
from speed_ray.report.funnel import Leg
from speed_ray.report.unreadable import Faults
from speed_ray.storage.run import Run
from speed_ray.storage.trained_models import FOLDER, Model

WIDTH, HEIGHT, DOWN, ACROSS = 168, 46, 84, 190  # of a box, and from one to the next


class Node(NamedTuple):
    """Holds a box: what stands in it, what it was made of, and the planned rows that its first arrow tells."""

    name: str
    line: str
    style: str  # "published", "growing", "model"
    sources: list[str]
    planned: str = ""


def draw_run(run: Run, legs: Sequence[Leg], faults: Faults) -> Markup:
    """Draw what was begun of a run, from its inputs down to its embedder."""
    return draw_nodes([*map(_artifact_node, legs), *_model_nodes(run, faults)], "artifacts and models of the run")


def draw_nodes(drawn: Sequence[Node], label: str) -> Markup:
    """Draw nodes below what they were made of; sources that are not among them have no arrow."""
    nodes = {node.name: node for node in drawn}
    shown = {name: _nearest(node, nodes) for name, node in nodes.items()}
    levels = _levels(shown)
    rows = [[name for name in nodes if levels[name] == level] for level in range(max(levels.values(), default=-1) + 1)]
    width, height = max(map(len, rows), default=1) * ACROSS, len(rows) * DOWN
    places = {
        name: (width * (number + 0.5) / len(row), level * DOWN + HEIGHT / 2 + 4)
        for level, row in enumerate(rows)
        for number, name in enumerate(_ordered(row, shown, [name for above in rows[:level] for name in above]))
    }
    arrows = [
        part for name, sources in shown.items() for source in sources for part in _arrow(places[source], places[name])
    ]
    told = [_told(nodes[name].planned, places[shown[name][0]], places[name]) for name in nodes if shown[name]]
    said = "; ".join(f"{node.name}: {node.line}" for node in nodes.values())
    return element(
        "svg",
        *(*arrows, *told, *(_box(nodes[name], *place) for name, place in places.items())),
        viewBox=f"0 0 {width} {max(DOWN, height)}",
        width=width,
        class_="picture",
        role="img",
        aria_label=f"{label}: {said}",
    )


def _artifact_node(leg: Leg) -> Node:
    counts, standing = leg.standing.counts, leg.standing
    rejected = f" · {counts.rejected:,} rejected" if counts.rejected else ""
    given = [
        value["artifact"] for value in leg.plan.identity.values() if isinstance(value, dict) and "artifact" in value
    ]
    sources = [*([leg.plan.input] if leg.plan.input else []), *given, *_models_in(leg.plan.identity)]
    line = f"{counts.records:,} records{rejected}"
    style = "published" if standing.published else "growing"
    return Node(leg.name, line, style, sources, f"{standing.planned:,} planned")


def _model_nodes(run: Run, faults: Faults) -> Iterator[Node]:
    for name in MODELS:
        model = Model(run, name)
        plan = faults.read(f"the plan of {name}", None, model.plan)
        if plan is not None:
            trained = faults.read(f"the weights of {name}", None, model.manifest) is not None
            data = plan.get("data")
            sources = [data["artifact"]] if isinstance(data, dict) and "artifact" in data else []
            sources += _models_in(plan)
            yield Node(name, "trained" if trained else "in training", "model" if trained else "growing", sources)


def _models_in(identity: Mapping[str, Any]) -> Iterator[str]:
    """Yield the models of this run that a plan names, however deep."""
    for key, value in identity.items():
        if isinstance(value, Mapping):
            yield from _models_in(value)
        elif isinstance(value, str) and key in ("model", "adapter") and (value in MODELS or f"/{FOLDER}/" in value):
            yield value.rpartition("/")[2]


def _nearest(node: Node, nodes: Mapping[str, Node]) -> list[str]:
    """List a node's sources, without those that another of them was made of: one arrow tells both."""
    sources = [name for name in dict.fromkeys(node.sources) if name in nodes and name != node.name]
    above = {name: _all_sources(name, nodes, set()) for name in sources}
    return [name for name in sources if not any(name in above[other] for other in sources if other != name)]


def _all_sources(name: str, nodes: Mapping[str, Node], seen: set[str]) -> set[str]:
    for source in nodes[name].sources:
        if source in nodes and source not in seen:
            seen.add(source)
            _all_sources(source, nodes, seen)
    return seen


def _levels(sources: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Return each node's row: below all that it was made of."""
    levels = dict.fromkeys(sources, 0)
    for _ in levels:  # as many rounds as the longest way may have
        for name, above in sources.items():
            levels[name] = min(len(sources), max((levels[each] + 1 for each in above), default=0))
    return levels


def _ordered(row: Sequence[str], sources: Mapping[str, Sequence[str]], above: Sequence[str]) -> list[str]:
    """Order a row by where its sources stand, so that arrows cross little."""
    return sorted(row, key=lambda name: sum(above.index(each) for each in sources[name]) / (len(sources[name]) or 1))


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> list[Markup]:
    (x, y), (to_x, to_y) = (start[0], start[1] + HEIGHT / 2), (end[0], end[1] - HEIGHT / 2)
    middle = (to_y - y) / 2
    way = f"M{x:.0f} {y:.0f}C{x:.0f} {y + middle:.0f} {to_x:.0f} {to_y - middle:.0f} {to_x:.0f} {to_y - 5:.0f}"
    head = f"M{to_x - 4:.0f} {to_y - 7:.0f}L{to_x:.0f} {to_y:.0f}L{to_x + 4:.0f} {to_y - 7:.0f}Z"
    return [element("path", d=way, class_="arrow"), element("path", d=head, class_="head")]


def _told(planned: str, start: tuple[float, float], end: tuple[float, float]) -> Markup:
    x = end[0] + (8 if end[0] >= start[0] else -8)
    return element("text", planned, x=x, y=end[1] - HEIGHT / 2 - 10, text_anchor="start" if x > end[0] else "end")


def _box(node: Node, x: float, y: float) -> Markup:
    left, top = x - WIDTH / 2, y - HEIGHT / 2
    box = element("rect", x=left, y=top, width=WIDTH, height=HEIGHT, rx=23 if node.style == "model" else 5)
    name = element("text", node.name, x=x, y=y - 4, text_anchor="middle", class_="name")
    line = element("text", node.line, x=x, y=y + 13, text_anchor="middle")
    return element("g", box, name, line, class_=node.style)
