"""Print what `speed-ray doctor` found: a line for each check as it comes, or all of them as JSON."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict

from rich.console import Console
from rich.text import Text

from speed_ray.doctor.finding import Finding
from speed_ray.text.terminal import sanitize

STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


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
