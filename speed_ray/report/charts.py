"""Draw small charts as SVG that stands in the page: shares of a row, histograms, curves, intervals, a treemap.

Own drawing and no library: each is a few shapes, coloured by the page's style so that it follows a dark screen, and
widths in percent fit a phone. matplotlib's SVG of one chart takes 20 kB, and its colours and sizes are fixed.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

Points = Sequence[tuple[float, float]]
COLOURS = 6  # that the page's style has, .c0 to .c5
CURVE, TREE = (320, 150), (800, 360)  # widths and heights


class Box(NamedTuple):
    """Holds a rectangle."""

    x: float
    y: float
    width: float
    height: float


def element(tag: str, *children: str, **attributes: object) -> Markup:
    """Return an SVG element, everything in it escaped; `_` stands for `-`, and ends names that Python keeps."""
    given = (
        (name.rstrip("_").replace("_", "-"), f"{value:.5g}" if isinstance(value, float) else value)
        for name, value in attributes.items()
    )
    written = Markup("").join(Markup(' {}="{}"').format(name, value) for name, value in given)
    inside = Markup("").join(escape(child) for child in children)
    return Markup("<{}{}>{}</{}>").format(tag, written, inside, tag)


def share_bar(share: float, colour: int = 0) -> Markup:
    """Draw a share of 1 as a bar; the number beside it says what it is."""
    width = f"{100 * min(1.0, max(0.0, share)):.2f}%"
    parts = element("rect", width="100%", height=10, class_="rest"), element("rect", width=width, height=10)
    return element("svg", parts[0], parts[1], class_=f"bar c{colour % COLOURS}", height=10, aria_hidden="true")


def histogram(counts: Sequence[float], label: str, colour: int = 0) -> Markup:
    """Draw counts as columns of one height at most."""
    top, step = max(counts, default=0) or 1, 100 / max(1, len(counts))
    columns = [
        element(
            "rect",
            x=f"{place * step:.2f}%",
            y=40 - 40 * count / top,
            width=f"{step * 0.85:.2f}%",
            height=40 * count / top,
        )
        for place, count in enumerate(counts)
    ]
    return element("svg", *columns, class_=f"columns c{colour % COLOURS}", height=40, role="img", aria_label=label)


def interval(low: float, mean: float, high: float, bound: float) -> Markup:
    """Draw an interval around its mean on an axis from -bound to bound."""
    at = [f"{50 + 48 * max(-1.0, min(1.0, value / (bound or 1))):.2f}%" for value in (low, mean, high)]
    parts = [
        element("line", x1="50%", x2="50%", y1=0, y2=16, class_="axis"),
        element("line", x1=at[0], x2=at[2], y1=8, y2=8, class_="range"),
        element("circle", cx=at[1], cy=8, r=4),
    ]
    return element("svg", *parts, class_="interval", height=16, aria_hidden="true")


def curves(title: str, lines: Mapping[str, Points]) -> Markup:
    """Draw values over steps, one line for each name, with the lowest and highest on the axes."""
    points = [point for line in lines.values() for point in line]
    (left, right), (low, high) = (_ends([point[axis] for point in points]) for axis in (0, 1))
    width, height = CURVE
    parts = [
        element("line", x1=0, x2=width, y1=height - 20, y2=height - 20, class_="axis"),
        element("text", f"{high:.4g}", x=0, y=12),
        element("text", f"{low:.4g}", x=0, y=height - 24),
        element("text", f"step {left:,.0f}", x=0, y=height - 4),
        element("text", f"{right:,.0f}", x=width, y=height - 4, text_anchor="end"),
    ]
    for colour, (name, line) in enumerate(lines.items()):
        at = " ".join(
            f"{48 + (x - left) / (right - left) * (width - 54):.1f},{height - 26 - (y - low) / (high - low) * 112:.1f}"
            for x, y in line
        )
        parts.append(element("polyline", element("title", name), points=at, class_=f"c{colour % COLOURS}"))
    said = "; ".join(f"{name} from {line[0][1]:.4g} to {line[-1][1]:.4g}" for name, line in lines.items())
    return element(
        "svg", *parts, class_="curves", viewBox=f"0 0 {width} {height}", role="img", aria_label=f"{title}: {said}"
    )


def _ends(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def treemap(groups: Mapping[str, Mapping[str, int]]) -> Markup:
    """Draw counts by group and name as areas: a group's rectangles share its colour and its place."""
    sizes = {name: sum(inside.values()) for name, inside in groups.items()}
    parts = []
    for colour, (name, box) in enumerate(_split(sizes, Box(0, 0, *map(float, TREE)))):
        for number, (inside, tile) in enumerate(_split(groups[name], box)):
            label = inside if number else f"{name}: {inside}"  # the first tile of a group names it
            parts.append(_tile(f"{name}: {inside}", label, groups[name][inside], tile, colour))
        parts.append(element("rect", **box._asdict(), class_="group"))
    said = "; ".join(f"{name} {size:,}" for name, size in sizes.items())
    size = f"0 0 {TREE[0]} {TREE[1]}"
    return element("svg", *parts, class_="treemap", viewBox=size, role="img", aria_label=f"kinds and topics: {said}")


def _tile(title: str, name: str, count: int, box: Box, colour: int) -> Markup:
    said = element("title", f"{title}: {count:,}")
    area = element("rect", said, **box._asdict(), class_=f"tile c{colour % COLOURS}")
    if box.width < 60 or box.height < 22:
        return area
    fits = int(box.width / 7)
    label = name if len(name) <= fits else name[: fits - 1] + "…"
    return area + element("text", label, x=box.x + 5, y=box.y + 15)


def _split(sizes: Mapping[str, int], box: Box) -> list[tuple[str, Box]]:
    """Divide a rectangle by sizes: halves of about one size, cut across the longer side, and so on within them."""
    ordered = sorted(((name, size) for name, size in sizes.items() if size), key=lambda pair: -pair[1])
    if len(ordered) < 2:
        return [(name, box) for name, _ in ordered]
    total, first, taken = sum(size for _, size in ordered), 0, 0
    while not first or (first < len(ordered) - 1 and taken + ordered[first][1] / 2 < total / 2):
        taken += ordered[first][1]
        first += 1
    share = taken / total
    if box.width >= box.height:
        one = box._replace(width=box.width * share)
        other = box._replace(x=box.x + one.width, width=box.width - one.width)
    else:
        one = box._replace(height=box.height * share)
        other = box._replace(y=box.y + one.height, height=box.height - one.height)
    return _split(dict(ordered[:first]), one) + _split(dict(ordered[first:]), other)
