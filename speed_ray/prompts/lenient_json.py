"""Decode one JSON object as models write them: commas trailing, lines broken inside strings, or written as Python.

Nothing is completed, guessed, evaluated or repaired.
"""

import json
import re
from typing import Any

from speed_ray.records import Rejected

ANY_OPENING = re.compile(r"""\{\s*+["']""")
_TOKEN = re.compile(  # an unterminated string runs to the end, so that hostile quotes cost linear time
    r"""(?P<json>"(?:[^"\\]|\\.)*+(?:"|\\?\Z)) | '(?P<python>(?:[^'\\]|\\.)*+)' | (?P<cut>'(?:[^'\\]|\\.)*+\\?\Z)
    | ,(?=\s*[}\]]) | (?P<brace>[{}])""",
    re.DOTALL | re.VERBOSE,
)
_STRING_OR_BRACE = {quote: re.compile(rf"{quote}(?:[^{quote}\\]|\\.)*+{quote}?|[{{}}]", re.DOTALL) for quote in "\"'"}
_QUOTE_OR_ESCAPE = re.compile(r'\\.|"', re.DOTALL)


class UnfinishedForm(Rejected):
    """Raised for an object with something in the place of a value that is none, such as {"best": a number}."""


def decode_object(text: str, start: int) -> tuple[dict[str, Any], int]:
    """Decode the object that opens at `start`: (object, its end). Raises Rejected."""
    try:
        return _DECODER.raw_decode(text, start)
    except json.JSONDecodeError:
        plain, end, closed = _as_json(text, start)
    try:
        return _DECODER.raw_decode(plain)[0], end
    except json.JSONDecodeError as error:
        if not closed and _at_end(error, plain):
            raise Rejected("truncated", error.msg) from None
        raise (UnfinishedForm if _lacks_value(error, plain) else Rejected)("not_json", error.msg) from None


def end_of_form(text: str, start: int) -> int | None:
    """Return where the braces of an unfinished form close, outside of its strings, or None where they never do."""
    opening = ANY_OPENING.match(text, start)
    assert opening is not None, "a form opens with a field's name"
    depth = 0
    for token in _STRING_OR_BRACE[opening.group()[-1]].finditer(text, start):
        depth += {"{": 1, "}": -1}.get(token.group(), 0)
        if depth == 0:
            return token.end()
    return None


def _as_json(text: str, start: int) -> tuple[str, int, bool]:
    """Rewrite the object at `start`: trailing commas dropped, Python strings requoted. (JSON, end, whether it closes).

    Tokens are matched from the object's opening brace on, and JSON has no quotes outside strings, so whenever the
    result decodes, each token was seen just as the decoder sees it: a comma or an apostrophe in a text is never one.
    """
    parts: list[str] = []
    place, depth = start, 0
    for token in _TOKEN.finditer(text, start):
        if brace := token["brace"]:
            depth += 1 if brace == "{" else -1
            if depth == 0:
                return "".join([*parts, text[place : token.end()]]), token.end(), True
        elif token["python"] is not None:
            parts += [text[place : token.start()], '"', _QUOTE_OR_ESCAPE.sub(_requoted, token["python"]), '"']
            place = token.end()
        elif token.group() == ",":
            parts.append(text[place : token.start()])
            place = token.end()
    return "".join([*parts, text[place:]]), len(text), False


def _requoted(found: re.Match[str]) -> str:
    if found.group() == "\\'":
        return "'"
    return '\\"' if found.group() == '"' else found.group()


def _at_end(error: json.JSONDecodeError, text: str) -> bool:
    """Check whether the decoder ran out of text, also in the middle of a string or of an escape's four digits."""
    left = len(text.rstrip("` \t\r\n")) - error.pos
    return left <= 0 or error.msg.startswith("Unterminated string") or (left < 6 and "escape" in error.msg)


def _lacks_value(error: json.JSONDecodeError, text: str) -> bool:
    """Check whether something that is no JSON stands for a value, a field, or more of them: `a number`, `...`, `|`."""
    return error.msg.startswith(("Expecting value", "Expecting property")) or text[error.pos : error.pos + 1] in "|.…<"


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Rejected("duplicate_field", f"{twice!r} is given more than once")
    return found


# Not strict: models break lines inside strings. Integers are read as floats, because int() of thousands of digits
# raises, and a number is rejected as a field whatever its value.
_DECODER = json.JSONDecoder(strict=False, object_pairs_hook=_without_duplicates, parse_int=float)
