"""Compare two texts word by word: what a revisor took away and what it put in."""

import re
from difflib import SequenceMatcher
from typing import Literal

Change = tuple[Literal["", "-", "+"], str]  # what both have, what only the first or the second has
WORD = re.compile(r"\w+|\s+|[^\w\s]")


def word_changes(before: str, after: str) -> list[Change]:
    """List the parts of two texts in order, so that all but "+" is the first and all but "-" the second."""
    old, new = WORD.findall(before), WORD.findall(after)
    changes: list[Change] = []
    for kind, old_from, old_to, new_from, new_to in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "equal":
            changes.append(("", "".join(old[old_from:old_to])))
            continue
        for sign, words in (("-", old[old_from:old_to]), ("+", new[new_from:new_to])):
            if words:
                changes.append((sign, "".join(words)))  # type: ignore[arg-type]
    return changes
