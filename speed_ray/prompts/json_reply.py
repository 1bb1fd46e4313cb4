"""Find the one JSON object in a model's reply that is its answer, and decode it without changing a word.

Models think aloud before they answer, try a draft first, show the form that they were asked for, and wrap their JSON
in talk and fences; they leave commas trailing, break lines inside strings and write Python instead. The object that
counts is the last whole one outside of thoughts that is no form. Nothing is completed, guessed, evaluated or repaired.
The time is linear in the length of a reply, whatever it holds.
"""

import functools
import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from speed_ray.records import Rejected

MAX_OBJECTS = 64  # that are tried in one reply: each can cost a reading of all that follows

_WORDS = (
    "(?:ant)?think(?:ing)?|thoughts?|thought_process|reason(?:ing)?|reflection|analysis|scratchpad|inner_monologue"
)
# <think>, <seed:think>, <|thinking|>; Magistral's [THINK]; Kimi's ◁think▷; OpenThinker's <|begin_of_thought|>;
# Cohere's <|START_THINKING|>; gpt-oss's analysis channel (harmony); Gemma's thought channel and <unused94>thought.
_THOUGHT_BEGINS = rf"""
    <\|?(?:\w{{1,16}}[:_-])?(?:{_WORDS})(?:\s[^<>{{}}]{{0,80}})?\|?> | \[THINK(?:ING)?\] | ◁think▷
    | <\|(?:begin_of_thought|START_THINKING)\|> | <\|channel\|?>\s{{0,9}}(?:analysis|thought)
    | <unused\d{{1,4}}>thought"""
_THOUGHT_ENDS = rf"""
    </(?:\w{{1,16}}[:_-])?(?:{_WORDS})\s?> | <\|/(?:{_WORDS})\|> | \[/THINK(?:ING)?\] | ◁/think▷
    | <\|(?:end_of_thought|END_THINKING)\|> | <\|channel\|>\s{{0,9}}final | <\|start\|>assistant<\|message\|>
    | <channel\|> | <unused\d{{1,4}}>(?!thought)"""
_END_OF_THOUGHT = re.compile(_THOUGHT_ENDS, re.IGNORECASE | re.VERBOSE)
# A model that does not stop there writes the next turn of the conversation as well.
_END_OF_TURN = re.compile(r"<\|(?:im_end|eot_id|eom_id|endoftext|end_of_text|END_OF_TURN_TOKEN)\|>|<end_of_turn>|</s>")
_BARE_ANALYSIS = re.compile("analysis(?=[A-Z])")
_ANY_OPENING = re.compile(r"""\{\s*+["']""")
_TOKEN = re.compile(  # an unterminated string runs to the end, so that hostile quotes cost linear time
    r"""(?P<json>"(?:[^"\\]|\\.)*+(?:"|\\?\Z)) | '(?P<python>(?:[^'\\]|\\.)*+)' | (?P<cut>'(?:[^'\\]|\\.)*+\\?\Z)
    | ,(?=\s*[}\]]) | (?P<brace>[{}])""",
    re.DOTALL | re.VERBOSE,
)
_STRING_OR_BRACE = {quote: re.compile(rf"{quote}(?:[^{quote}\\]|\\.)*+{quote}?|[{{}}]", re.DOTALL) for quote in "\"'"}
_QUOTE_OR_ESCAPE = re.compile(r'\\.|"', re.DOTALL)
_FENCE = re.compile(r"```\w*")


class _UnfinishedForm(Rejected):
    """Raised for an object with something in the place of a value that is none, such as {"best": a number}."""


class _Decoded(NamedTuple):
    """Hold a decoded object and where it stands in the reply."""

    start: int
    end: int
    fields: dict[str, Any]


def find_object(text: str, names: tuple[str, ...], is_placeholder: Callable[[str], bool]) -> dict[str, Any]:
    """Decode the object of a reply that is its answer, with all of `names` where one has them. Raises Rejected.

    Of several the last counts, those left out of which every text is a placeholder. Those that follow each other
    without a word between them are no drafts of one answer: which of them is meant, nobody can tell.
    """
    text = _END_OF_TURN.split(text, maxsplit=1)[0].lstrip("\ufeff \t\r\n")
    try:
        scan = _Scan(text, names)
        scan.run()
        whole = [each for each in scan.found if each.fields.keys() >= set(names)] or scan.found[:1]
        if not whole:
            return _decode_any(text, scan.answer)
        written = [each for each in whole if not _is_form(each.fields, is_placeholder)] or whole[-1:]
        _refuse_alternatives(text, written)
        return written[-1].fields
    except RecursionError:
        raise Rejected("not_json", "the JSON is nested too deeply") from None


class _Scan:
    """Decode, from left to right, the objects outside of thoughts that open with one of some names.

    Marks of thoughts inside an object belong to its texts. A thought whose beginning the chat template wrote has its
    end alone, and all before that is the thought. `answer` is where the last thought ends.
    """

    def __init__(self, text: str, names: tuple[str, ...]) -> None:
        self.found: list[_Decoded] = []
        self.answer = 0
        self._text = text
        self._event, self._unquoted = _patterns(names)
        self._tried = 0
        self._thoughts_end = True  # False where no end of a thought follows

    def run(self) -> None:
        """Scan the whole reply. Raises Rejected where an object cannot be decoded, or a thought does not end."""
        place: int | None = self._skip_bare_harmony()
        while place is not None and (event := self._event.search(self._text, place)):
            if event["object"]:
                place = self._read_object(event.start())
            elif event["end"]:
                place = self._end_thought(event)
            else:
                place = self._skip_thought(event)

    def _skip_bare_harmony(self) -> int:
        """Skip the analysis of gpt-oss as engines write it that drop special tokens: analysisWe…assistantfinal{…}."""
        if not _BARE_ANALYSIS.match(self._text):
            return 0
        final = self._text.find("assistantfinal")
        if final < 0:
            raise _still_thinking()
        self.answer = final
        return final

    def _read_object(self, start: int) -> int:
        """Decode the object at `start` and return its end, or that of the thought or unfinished form that it is of."""
        self._tried += 1
        if self._tried > MAX_OBJECTS:
            raise Rejected("several_objects", f"the reply holds more than {MAX_OBJECTS} objects")
        try:
            fields, end = _decode(self._text, start)
        except Rejected as rejected:
            form = _end_of_form(self._text, start) if isinstance(rejected, _UnfinishedForm) else None
            thought = self._end_around(start)
            if form is not None and (thought is None or form <= thought):
                return form
            if thought is None:
                raise
            self.found, self.answer = [], thought
            return thought
        self.found.append(_Decoded(start, end, fields))
        return end

    def _end_around(self, start: int) -> int | None:
        """Return the end of the thought that a broken object is in: an object that no string can hold follows it.

        There is none where the object at `start` is written as Python: its strings can hold any object.
        """
        if self._unquoted.match(self._text, start) is None:
            return None
        ended = _END_OF_THOUGHT.search(self._text, start)
        return ended.end() if ended and self._unquoted.search(self._text, ended.end()) else None

    @functools.cached_property
    def _last_opening(self) -> int:
        return max((each.start() for each in self._event.finditer(self._text) if each["object"]), default=-1)

    def _end_thought(self, mark: re.Match[str]) -> int | None:
        """Drop the objects before the end of a thought, unless the reply begins with one and has none after it."""
        if self.found and self._text.startswith("{") and mark.start() > self._last_opening:
            return None
        self.found, self.answer = [], mark.end()
        return mark.end()

    def _skip_thought(self, mark: re.Match[str]) -> int | None:
        """Return the end of the thought that begins here. A mark without an end counts only where a line begins."""
        ended = _END_OF_THOUGHT.search(self._text, mark.end()) if self._thoughts_end else None
        if ended is not None:
            self.answer = ended.end()
            return ended.end()
        self._thoughts_end = False
        before = self._text[max(0, mark.start() - 80) : mark.start()].rstrip(" \t")
        if before and before[-1] not in "\n>":
            return mark.end()
        if not self.found:
            raise _still_thinking()
        return None


@functools.cache
def _patterns(names: tuple[str, ...]) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return the patterns of the next event of a scan, and of an opening that no string of a JSON object can hold.

    In a string a quote is written \". An opening that the reply's end cuts off is an event as well.
    """
    either = "|".join(map(re.escape, names))
    opening = rf"""\{{\s*+(?:["'](?:{either})["']\s*+: | (?:["']\w*+["']?\s*+)?\Z)"""
    event = rf"""(?=[<\[{{◁])(?:
        (?P<object>{opening}) | (?i:(?P<begin>{_THOUGHT_BEGINS}) | (?P<end>{_THOUGHT_ENDS})))"""
    return re.compile(event, re.VERBOSE), re.compile(rf"""\{{\s*+"(?:{either})"\s*+:""")


def _still_thinking() -> Rejected:
    return Rejected("truncated", "the reply ends while the model is still thinking")


def _decode_any(text: str, answer: int) -> dict[str, Any]:
    opening = _ANY_OPENING.search(text, answer)
    if opening is None:
        raise Rejected("not_json", f"the reply holds no JSON object{' after its thoughts' if answer else ''}")
    return _decode(text, opening.start())[0]


def _is_form(fields: dict[str, Any], is_placeholder: Callable[[str], bool]) -> bool:
    """Check whether an object has texts, in lists and objects too, and all of them are placeholders."""
    waiting: list[Any] = [fields]
    texts = 0
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            texts += 1
            if not is_placeholder(value):
                return False
        elif isinstance(value, list | dict):
            waiting.extend(value.values() if isinstance(value, dict) else value)
    return texts > 0


def _refuse_alternatives(text: str, written: list[_Decoded]) -> None:
    if len(written) < 2:
        return
    before, last = written[-2:]
    between = _FENCE.sub("", text[before.end : last.start])
    if before.fields != last.fields and not any(map(str.isalpha, between)):
        raise Rejected("several_objects", f"the reply lists {len(written)} objects: which is the answer?")


def _decode(text: str, start: int) -> tuple[dict[str, Any], int]:
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
        raise (_UnfinishedForm if _lacks_value(error, plain) else Rejected)("not_json", error.msg) from None


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


def _end_of_form(text: str, start: int) -> int | None:
    """Return where the braces of an unfinished form close, outside of its strings, or None where they never do."""
    opening = _ANY_OPENING.match(text, start)
    assert opening is not None, "a form opens with a field's name"
    depth = 0
    for token in _STRING_OR_BRACE[opening.group()[-1]].finditer(text, start):
        depth += {"{": 1, "}": -1}.get(token.group(), 0)
        if depth == 0:
            return token.end()
    return None


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
