"""Parse a model's reply into an example, tasks, a verdict or a critique, or reject it with a reason to count.

Models wrap their JSON in talk, fences and thoughts, leave commas trailing, break lines inside strings and write Python
instead. All of that is parsed, by rules that cannot touch a word of the content: nothing is completed, guessed,
evaluated or repaired. What JSON's own grammar does not then accept is rejected.
"""

import functools
import json
import re
from typing import Any

from speed_ray.kinds.kind import Fields, Kind, Slots
from speed_ray.records import Rejected
from speed_ray.text.language import other_language
from speed_ray.text.rules import is_plain

MAX_TASK_CHARS = 400  # characters; a longer one is no sentence
VERDICT_FIELDS = ("reason", "best", "worst")
REMARKS = ("relevance", "completeness", "accuracy")  # on an example (SPEED, section 3.2)

_ANY_OPENING = re.compile(r"""\{\s*["']""")
_TOKEN = re.compile(  # an unterminated string runs to the end, so that hostile quotes cost linear time
    r"""("(?:[^"\\]|\\.)*+(?:"|\\?\Z)) | '((?:[^'\\]|\\.)*+)' | ('(?:[^'\\]|\\.)*+\\?\Z) | ,(?=\s*[}\]])""",
    re.DOTALL | re.VERBOSE,
)
_QUOTE_OR_ESCAPE = re.compile(r'\\.|"', re.DOTALL)
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_NUMBERING = re.compile(r"\A(?:\d{1,3}[.)]|[-*•])\s+")


def parse_example(text: str, kind: Kind, slots: Slots, language: str) -> Fields:
    """Parse one example of a kind, its fields stripped of surrounding space and checked. Raises Rejected."""
    return _checked(unchecked_fields(text, kind), kind, slots, language)


def unchecked_fields(text: str, kind: Kind) -> Fields:
    """Parse one example without checking what its fields say. Raises Rejected."""
    return _fields(_object(text, tuple(field.name for field in kind.fields)), kind)


def _fields(found: dict[str, Any], kind: Kind) -> Fields:
    fields = {field.name: _string(found, field.name) for field in kind.fields}
    _refuse_extra(found, set(fields))
    return fields


def _checked(fields: Fields, kind: Kind, slots: Slots, language: str) -> Fields:
    for field in kind.fields:
        _refuse_language(field.name, fields[field.name], None if field.any_language else language)
    if broken := kind.check(fields, slots):
        raise Rejected(*broken)
    return fields


def parse_tasks(text: str, ask: int) -> list[str]:
    """Parse a brainstormed list: at most `ask` different sentences, their numbering dropped. Raises Rejected."""
    found = _object(text, ("tasks",))
    if "tasks" not in found:
        raise Rejected("missing_field", 'the reply has no "tasks"')
    _refuse_extra(found, {"tasks"})
    if not isinstance(found["tasks"], list):
        raise Rejected("not_a_list", f'"tasks" is a {type(found["tasks"]).__name__}')
    sentences: dict[str, str] = {}
    for item in found["tasks"]:
        if isinstance(item, str) and (sentence := _NUMBERING.sub("", item.strip())) and _is_task(sentence):
            sentences.setdefault(is_plain(sentence), sentence)
    if not sentences:
        raise Rejected("no_tasks", f"none of {len(found['tasks'])} items is a sentence of a task")
    return list(sentences.values())[:ask]


def parse_verdict(text: str, shown: int) -> tuple[int, int, str]:
    """Parse a verdict: the numbers, from 1, of the best and worst of `shown` examples, and why. Raises Rejected.

    A number is a JSON number without a fraction: 2 and 2.0 are one, "2", true and 2.5 are none.
    """
    found = _object(text, VERDICT_FIELDS)
    best, worst, reason = _place(found, "best", shown), _place(found, "worst", shown), _string(found, "reason")
    _refuse_extra(found, set(VERDICT_FIELDS))
    if best == worst:
        raise Rejected("best_is_worst", f"example {best} is called both")
    return best, worst, reason


def verdict_schema(shown: int) -> dict[str, Any]:
    """Return the JSON schema of a verdict on `shown` candidates; the reason comes first, before the decision."""
    place = {"type": "integer", "enum": list(range(1, shown + 1))}
    return _object_schema({"reason": {"type": "string", "minLength": 1}, "best": place, "worst": place})


def parse_critique(text: str, kind: Kind, slots: Slots, language: str) -> tuple[dict[str, str], Fields]:
    """Parse the three remarks on an example, and its revision, which is checked like any example. Raises Rejected."""
    found = _object(text, (*REMARKS, "revision"))
    remarks = {name: _string(found, name) for name in REMARKS}
    if "revision" not in found:
        raise Rejected("missing_field", "the reply has no 'revision'")
    if not isinstance(found["revision"], dict):
        raise Rejected("not_an_object", f"'revision' is a {type(found['revision']).__name__}")
    _refuse_extra(found, {*REMARKS, "revision"})
    return remarks, _checked(_fields(found["revision"], kind), kind, slots, language)


def critique_schema(kind: Kind) -> dict[str, Any]:
    """Return the JSON schema of a critique with its revision."""
    remarks = {name: {"type": "string", "minLength": 1} for name in REMARKS}
    return _object_schema({**remarks, "revision": kind.schema})


def _object_schema(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def tasks_schema(ask: int) -> dict[str, Any]:
    """Return the JSON schema of a brainstormed list, for structured output."""
    sentence = {"type": "string", "minLength": 1}
    return _object_schema({"tasks": {"type": "array", "items": sentence, "minItems": 1, "maxItems": ask}})


def _object(text: str, names: tuple[str, ...]) -> dict[str, Any]:
    """Decode the object that opens with one of `names`, else the first; never one inside another that failed."""
    opening, thought_then_opening = _openings(names)
    answer = _after_thoughts(text, thought_then_opening)
    start = opening.search(answer) or _ANY_OPENING.search(answer)
    if start is None:
        raise Rejected("not_json", "the reply holds no JSON object")
    return _decode(answer, start.start())


@functools.cache
def _openings(names: tuple[str, ...]) -> tuple[re.Pattern[str], re.Pattern[str]]:
    either = "|".join(map(re.escape, names))
    # No JSON string can hold the second: a quote in a string is written \".
    thought_then_opening = rf"""</think>\s*(?:```\w*\s*)?(?=\{{\s*"(?:{either})")"""
    return re.compile(rf"""\{{\s*["'](?:{either})["']"""), re.compile(thought_then_opening)


def _after_thoughts(text: str, thought_then_opening: re.Pattern[str]) -> str:
    answer = text.lstrip("\ufeff \t\r\n")
    if answer.startswith("<think>"):
        _, ended, answer = answer.partition("</think>")
        if not ended:
            raise Rejected("truncated", "the reply ends while the model is still thinking")
    elif not answer.startswith("{") and (thought := thought_then_opening.search(answer)):
        answer = answer[thought.end() :]  # some chat templates open the thought themselves
    return answer


def _decode(text: str, start: int) -> dict[str, Any]:
    found: dict[str, Any]
    try:
        try:
            found, _ = _DECODER.raw_decode(text, start)
        except json.JSONDecodeError:
            plain = _TOKEN.sub(_as_json, text[start:])
            found, _ = _DECODER.raw_decode(plain)
        return found
    except json.JSONDecodeError as error:
        raise Rejected("truncated" if _at_end(error, plain) else "not_json", error.msg) from None
    except RecursionError:
        raise Rejected("not_json", "the JSON is nested too deeply") from None


def _as_json(token: re.Match[str]) -> str:
    """Drop a trailing comma, requote a Python string, keep a JSON string.

    Tokens are matched from the object's opening brace on, and JSON has no quotes outside strings, so whenever the
    result decodes, each token was seen just as the decoder sees it: a comma or an apostrophe in a text is never one.
    """
    json_string, python_string, unterminated = token.groups()
    if python_string is not None:
        return '"' + _QUOTE_OR_ESCAPE.sub(_requoted, python_string) + '"'
    return json_string or unterminated or ""


def _requoted(found: re.Match[str]) -> str:
    if found.group() == "\\'":
        return "'"
    return '\\"' if found.group() == '"' else found.group()


def _at_end(error: json.JSONDecodeError, text: str) -> bool:
    """Check whether the decoder ran out of text, also in the middle of a string or of an escape's four digits."""
    left = len(text.rstrip("` \t\r\n")) - error.pos
    return left <= 0 or error.msg.startswith("Unterminated string") or (left < 6 and "escape" in error.msg)


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


def _string(found: dict[str, Any], name: str) -> str:
    if name not in found:
        raise Rejected("missing_field", f"the reply has no {name!r}")
    value = found[name]
    if not isinstance(value, str):
        raise Rejected("not_a_string", f"{name!r} is a {type(value).__name__}")
    if not (value := value.strip()):
        raise Rejected("blank_field", f"{name!r} is blank")
    if not value.isprintable():  # nor is a line break, but few texts have one, and this is much the faster look
        _refuse_unprintable(name, value)
    return value


def _place(found: dict[str, Any], name: str, shown: int) -> int:
    if name not in found:
        raise Rejected("missing_field", f"the reply has no {name!r}")
    value = found[name]
    if type(value) is not float or not value.is_integer():  # integers too are read as floats, true and false are not
        raise Rejected("not_a_place", f"{name!r} is {value!r}"[:200])
    if not 1 <= value <= shown:
        raise Rejected("out_of_range", f"{name!r} is {value:g}, of {shown} examples shown")
    return int(value)


def _refuse_unprintable(name: str, value: str) -> None:
    if control := _CONTROL.search(value):
        raise Rejected("control_character", f"{name!r} holds U+{ord(control.group()):04X}")
    if _SURROGATE.search(value):
        raise Rejected("lone_surrogate", f"{name!r} holds half of a surrogate pair, which is no character")


def _refuse_extra(found: dict[str, Any], wanted: set[str]) -> None:
    if extra := sorted(set(found) - wanted):
        raise Rejected("extra_field", f"nobody asked for {', '.join(map(repr, extra))}"[:200])


def _refuse_language(name: str, text: str, wanted: str | None) -> None:
    if wanted is not None and (other := other_language(text, wanted)):
        raise Rejected("wrong_language", f"{name!r} is in {other!r}, not in {wanted}")


def _is_task(sentence: str) -> bool:
    unfit = "\n" in sentence or _CONTROL.search(sentence) or _SURROGATE.search(sentence)
    return len(sentence) <= MAX_TASK_CHARS and not unfit
