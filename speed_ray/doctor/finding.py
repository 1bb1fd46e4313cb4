"""Define what a check finds: one line that says how things are, and what to do where they are not well."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """Holds one line of an examination. `advice` is empty where there is nothing to do."""

    name: str  # of what was looked at: "shared memory", "teacher"
    level: Level
    found: str
    advice: str = ""


def gigabytes(amount: float) -> str:
    """Format bytes as GB of 2^30, as memory is sold."""
    return f"{amount / 2**30:,.1f} GB"
