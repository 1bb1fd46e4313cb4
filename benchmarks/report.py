"""One benchmark's result: a table for a person, one JSON object for a program."""

import argparse
import json
import operator
import resource
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Result:
    """`figure` against `goal` in `unit`, met or not, with every number seen on the way in `details`.

    Without its rival a benchmark has no figure, and nothing is known of the goal.
    """

    benchmark: str
    figure: float | None
    goal: str
    unit: str
    met: bool | None
    details: list[dict[str, Any]] = field(default_factory=list)


def emit(result: Result, as_json: bool) -> None:
    """Print a result."""
    if as_json:
        print(json.dumps(asdict(result)))
        return
    console = Console()
    figure = "no figure of" if result.figure is None else f"{result.figure:,.3f}"
    table = Table(title=f"{result.benchmark}: {figure} {result.unit} (goal {result.goal})")
    columns = list(dict.fromkeys(key for row in result.details for key in row))
    for column in columns:
        table.add_column(column)
    for row in result.details:
        table.add_row(*(cell(row.get(column)) for column in columns))
    console.print(table)
    console.print({True: "goal met", False: "goal NOT met", None: "not compared with the goal"}[result.met])


def emit_against(
    bound: str, benchmark: str, figure: float, unit: str, details: list[dict[str, Any]], as_json: bool
) -> None:
    """Print a result whose goal is one bound of its figure, such as ">= 0.97"."""
    relation, limit = bound.split()
    met = {">=": operator.ge, "<=": operator.le, ">": operator.gt}[relation](figure, float(limit))
    emit(Result(benchmark, figure, bound, unit, met, details), as_json)


def options(description: str | None) -> argparse.ArgumentParser:
    """Return a parser that knows `--json`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    return parser


def say(text: str) -> None:
    """Tell a waiting person what goes on; standard output is the result's."""
    print(text, file=sys.stderr, flush=True)


def peak() -> float:
    """The most memory that this process, or any one that it waited for, held at once: MB.

    A process begins with the peak of the one that started it in its `ru_maxrss`, even after exec: its own is the
    kernel's VmHWM. Children's are the larger of theirs and of what this process had when it started them.
    """
    status = Path("/proc/self/status").read_text().splitlines()
    own = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024


def cell(value: Any) -> str:
    """Write one value of a table."""
    if value is None:
        return ""
    return f"{value:,.3f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
