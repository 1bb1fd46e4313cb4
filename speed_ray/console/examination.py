"""Define `speed-ray doctor`: it prints a line for each check as it comes, or all of them as JSON."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from speed_ray.doctor.finding import Finding
from speed_ray.recipes import load_recipe
from speed_ray.text.terminal import sanitize

STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor(
    recipe: Annotated[str | None, typer.Option("--recipe", help="Look at what this recipe needs as well.")] = None,
    run: Annotated[str | None, typer.Option("--run", help="Look at the store of this folder as well.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value over the recipe.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Examine this machine, a recipe and its endpoints, before anything is spent. Exit code 1 when a check fails."""
    from speed_ray.doctor.examine import examine  # brings the stages

    loaded = load_recipe(recipe, set_ or ()) if recipe else None
    if not show_examination(examine(loaded, run), Console(soft_wrap=True), as_json):
        raise typer.Exit(1)


def show_examination(findings: Iterable[Finding], console: Console, as_json: bool) -> bool:
    """Print findings, and how many there are of each level; return whether none is a failure."""
    levels = Counter[str]()
    found = []
    for finding in findings:
        levels[finding.level] += 1
        found.append(asdict(finding))
        if not as_json:
            console.print(_line(finding), highlight=False)
    counts = {level: levels[level] for level in STYLES}
    if as_json:
        print(json.dumps({"checks": found, **counts}, indent=2))
    else:
        console.print(Text(", ".join(f"{count} {level}" for level, count in counts.items())), highlight=False)
    return not levels["fail"]


def _line(finding: Finding) -> Text:
    line = Text(f"{finding.level:<5}", style=STYLES[finding.level])
    line.append_text(Text(f"{finding.name}: ", style="bold")).append_text(sanitize(finding.found))
    return line.append_text(sanitize(f"\n     {finding.advice}")) if finding.advice else line
