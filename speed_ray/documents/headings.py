"""Find the headings of a text: lines that begin with one to six `#` and a space, outside of code fences."""

import re
from collections.abc import Iterator
from typing import NamedTuple

_LINE = re.compile(r"^ {0,3}(?:(?P<fence>```|~~~)|(?P<marks>#{1,6})[ \t]+(?P<heading>\S.*?)[ \t#]*$)", re.MULTILINE)


class Heading(NamedTuple):
    """Hold a heading: its level, its words, and the characters before and up to the end of its line."""

    level: int
    heading: str
    start: int
    end: int


def find_headings(text: str) -> Iterator[Heading]:
    """Yield the headings of a text in order."""
    is_code = False
    for found in _LINE.finditer(text) if "#" in text else ():
        if found["fence"]:
            is_code = not is_code
        elif not is_code:
            yield Heading(len(found["marks"]), found["heading"], found.start(), found.end())
