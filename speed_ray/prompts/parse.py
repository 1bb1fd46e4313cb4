"""Parse a model's reply into an example, tasks, a verdict or a critique, or reject it with a reason to count.

json_reply.py finds the object that is the answer. Here it is held against what was asked: all fields and no other,
texts of their own and not the prompt's, in the language that was drawn. No word is changed: "\\r\\n" becomes "\\n".
"""

import re
from collections.abc import Sequence
from typing import Any

from speed_ray.kinds.kind import Fields, Kind, Slots
from speed_ray.prompts.json_reply import find_object
from speed_ray.records import Message, Rejected
from speed_ray.text import rules
from speed_ray.text.language import other_language
from speed_ray.text.words import fold, split_words

MAX_TASK_CHARS = 400  # characters; a longer one is no sentence
MIN_TASK_WORDS = 2  # with a letter; "task 1" is none
VERDICT_FIELDS = ("reason", "best", "worst")
REMARKS = ("relevance", "completeness", "accuracy")  # on an example (SPEED, section 3.2)

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_LINE_BREAK = re.compile("\r\n?")
QUOTES = {'""', "\u201c\u201d", "\u201e\u201c", "''", "\u00ab\u00bb", "\u300c\u300d", "**"}
# What a model itself writes before a line that already has a label: "Query: ", "Question 2: ", "A title: ".
_LABEL = re.compile(
    r"\A[*_]*(?:the |an? |my |user'?s? |search )?(?:query|question|keywords?|claim|title|situation|messy|answer)"
    r"(?: \d{1,2})?[*_]*:[*_]*\s*",
    re.IGNORECASE,
)
# "1. ", "(2) ", "#3: ", "- ", "**Task 4:** ", also with the word for a task in the language that is written
_NUMBERING = re.compile(
    r"""\A(?: [-*•]\s+ | \**[(#]*\d{1,3}\**(?:[.):]\**\s+|、) | \#\d{1,3}\s+
    | \**(?:task|aufgabe|taak|compito|tarea|tarefa|tâche|zadanie|görev|задача|任务|任務|タスク|과제)
      \s*\#?\d{1,3}\s*\**[.:：)–—-]\**\s* )+""",
    re.IGNORECASE | re.VERBOSE,
)


def parse_example(text: str, kind: Kind, slots: Slots, language: str) -> Fields:
    """Parse one example of a kind, its fields stripped of surrounding space and checked. Raises Rejected."""
    return _checked(unchecked_fields(text, kind), kind, slots, language)


def unchecked_fields(text: str, kind: Kind, one_line: bool = False) -> Fields:
    """Parse one example without checking what its fields say. Raises Rejected.

    It is a JSON object or, where the model was to continue a text by `one_line`, that line, the kind's only field.
    """
    if one_line:
        return {kind.fields[0].name: _first_line(text)}
    return _fields(find_object(text, tuple(field.name for field in kind.fields), kind.is_placeholder), kind)


def parse_grounded(text: str, kind: Kind, slots: Slots, language: str, passage: str, one_line: bool) -> Fields:
    """Parse what a grounded kind was to write about a passage, and check it beside that. Raises Rejected."""
    return _checked(unchecked_fields(text, kind, one_line), kind, slots, language, {str(kind.passage): passage})


def _first_line(text: str) -> str:
    """Return the first line of a continuation without the numbering, label and quotes that the model put around it."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    line = _LABEL.sub("", _NUMBERING.sub("", line)).strip()
    if len(line) > 1 and line[0] + line[-1] in QUOTES:
        line = line[1:-1].strip()
    if not line:
        raise Rejected("blank_field", "the model wrote nothing on the line that it was to continue")
    _refuse_unprintable("the line", line)
    return line


def _fields(found: dict[str, Any], kind: Kind) -> Fields:
    fields = {field.name: _string(found, field.name) for field in kind.fields}
    _refuse_extra(found, set(fields))
    return fields


def _checked(fields: Fields, kind: Kind, slots: Slots, language: str, given: Fields | None = None) -> Fields:
    """Return the fields that a model wrote, checked beside those `given` to it. Raises Rejected."""
    if broken := kind.check_written(fields):
        raise Rejected(*broken)
    for field in kind.fields:
        _refuse_language(field.name, fields[field.name], None if field.any_language else language)
    if broken := kind.check(fields | (given or {}), slots):
        raise Rejected(*broken)
    return fields


def parse_tasks(text: str, ask: int, messages: Sequence[Message]) -> list[str]:
    """Parse a brainstormed list: at most `ask` different sentences, their numbering dropped. Raises Rejected.

    What the prompt says itself, `messages`, is no new task.
    """
    prompt = rules.is_plain(_content(messages))
    found = find_object(text, ("tasks",), lambda item: not _is_task(item.strip(), prompt))
    if "tasks" not in found:
        raise Rejected("missing_field", 'the reply has no "tasks"')
    _refuse_extra(found, {"tasks"})
    if not isinstance(found["tasks"], list):
        raise Rejected("not_a_list", f'"tasks" is a {type(found["tasks"]).__name__}')
    sentences: dict[str, str] = {}
    for item in found["tasks"]:
        if isinstance(item, str) and (sentence := _NUMBERING.sub("", item.strip())) and _is_task(sentence, prompt):
            sentences.setdefault(rules.is_plain(sentence), sentence)
    if not sentences:
        raise Rejected("no_tasks", f"none of {len(found['tasks'])} items is a sentence of a task")
    return list(sentences.values())[:ask]


def parse_verdict(text: str, shown: int, messages: Sequence[Message]) -> tuple[int, int, str]:
    """Parse a verdict: the numbers, from 1, of the best and worst of `shown` examples, and why. Raises Rejected.

    A number is a JSON number without a fraction: 2 and 2.0 are one, "2", true and 2.5 are none. The reason is not what
    the prompt, `messages`, shows in its place.
    """
    prompt = _content(messages)
    found = find_object(
        text, VERDICT_FIELDS, lambda said: rules.is_stand_in(said) or _is_shown("reason", said, prompt)
    )
    best, worst = _place(found, "best", shown), _place(found, "worst", shown)
    reason = _remark(found, "reason", prompt)
    _refuse_extra(found, set(VERDICT_FIELDS))
    if best == worst:
        raise Rejected("best_is_worst", f"example {best} is called both")
    return best, worst, reason


def verdict_schema(shown: int) -> dict[str, Any]:
    """Return the JSON schema of a verdict on `shown` candidates; the reason comes first, before the decision."""
    place = {"type": "integer", "enum": list(range(1, shown + 1))}
    return _object_schema({"reason": {"type": "string", "minLength": 1}, "best": place, "worst": place})


def parse_critique(
    text: str, kind: Kind, slots: Slots, language: str, messages: Sequence[Message]
) -> tuple[dict[str, str], Fields]:
    """Parse the three remarks on an example, and its revision, which is checked like any example. Raises Rejected.

    A remark is not what the prompt, `messages`, shows in its place.
    """
    prompt = _content(messages)

    def is_placeholder(said: str) -> bool:
        return kind.is_placeholder(said) or any(_is_shown(name, said, prompt) for name in REMARKS)

    found = find_object(text, (*REMARKS, "revision"), is_placeholder)
    remarks = {name: _remark(found, name, prompt) for name in REMARKS}
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


def _string(found: dict[str, Any], name: str) -> str:
    if name not in found:
        raise Rejected("missing_field", f"the reply has no {name!r}")
    value = found[name]
    if not isinstance(value, str):
        raise Rejected("not_a_string", f"{name!r} is a {type(value).__name__}")
    if not (value := value.strip()):
        raise Rejected("blank_field", f"{name!r} is blank")
    if not value.isprintable():  # nor is a line break, but few texts have one, and this is much the faster look
        value = _LINE_BREAK.sub("\n", value)
        _refuse_unprintable(name, value)
    return value


def _remark(found: dict[str, Any], name: str, prompt: str) -> str:
    value = _string(found, name)
    if broken := rules.written(name, value) or rules.no_stand_in(name, value, is_label=True):
        raise Rejected(*broken)
    if _is_shown(name, value, prompt):
        raise Rejected("placeholder", f"{name!r} holds what the prompt shows in its place")
    return value


def _is_shown(name: str, said: str, prompt: str) -> bool:
    """Check whether a text is what a prompt shows in its place: "name": "text", or "name": text."""
    said, prompt = fold(said.strip().rstrip(".")), fold(prompt) + "\n"
    return any(f'"{name}": {form}' in prompt for form in (f'"{said}"', f"{said}\n"))


def _content(messages: Sequence[Message]) -> str:
    return "\n".join(message["content"] for message in messages)


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


def _is_task(sentence: str, prompt: str) -> bool:
    """Check that a sentence is a task of its own, which the prompt, in `is_plain` form, does not say itself."""
    if len(sentence) > MAX_TASK_CHARS or "\n" in sentence or _CONTROL.search(sentence) or _SURROGATE.search(sentence):
        return False
    named = sum(any(map(str.isalpha, word)) for word in split_words(sentence))
    return (
        named >= MIN_TASK_WORDS
        and not rules.is_stand_in(sentence)
        and rules.is_plain(sentence).rstrip(".!") not in prompt
    )
