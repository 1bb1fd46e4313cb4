"""Draw the data's way as README's flowchart has it, in the shapes of a run's report."""

import re
from pathlib import Path

from markupsafe import Markup

from speed_ray.report.run_picture import Node, draw_nodes

README = Path(__file__).parents[1] / "README.md"
FLOWCHART = re.compile(r"^```mermaid\nflowchart LR\n(.+?)^```$", re.M | re.S)
NAME = re.compile(r"(\w+)(\(\()?")
ARROW = re.compile(r"-->\|([^|]+)\|")


def draw_way(start: str) -> Markup:
    """Draw everything that is made of `start`, "documents" or "topics"."""
    nodes = [Node(start, "yours", "published", [])]
    for source, label, target, is_model in _arrows():
        names = [node.name for node in nodes]
        if source not in names:
            continue
        models = [word for word in re.findall(r"\w+", label) if word in names]
        if target in names:
            known = nodes[names.index(target)]
            nodes[names.index(target)] = known._replace(sources=[*known.sources, source, *models])
        else:
            nodes.append(Node(target, label, "model" if is_model else "published", [source, *models]))
    return Markup('<div class="way">{}</div>').format(draw_nodes(nodes, f"what is made of {start}"))


def _arrows() -> list[tuple[str, str, str, bool]]:
    """List README's arrows in its order: from what, by whom and how, to what, and whether that is a model."""
    (chart,) = FLOWCHART.findall(README.read_text(encoding="utf-8"))
    found = []
    for line in chart.splitlines():
        first, *rest = ARROW.split(line)
        ends = [NAME.search(part) for part in (first, *rest[1::2])]
        assert all(ends), line
        for number, label in enumerate(rest[::2]):
            source, target = ends[number], ends[number + 1]
            found.append((source[1], label, target[1], bool(target[2])))
    return found
