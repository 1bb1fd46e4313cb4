"""Find the one JSON object in a model's reply that is its answer, and decode it without changing a word.

Models think aloud before they answer, try a draft first, show the form that they were asked for, and wrap their JSON
in talk and fences; they leave commas trailing, break lines inside strings and write Python instead. The object that
counts is the last whole one outside of thoughts that is no form; of several that are offered side by side none does.
The time is linear in the length of a reply, whatever it holds.
"""

import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from speed_ray.prompts import thoughts
from speed_ray.prompts.lenient_json import ANY_OPENING, UnfinishedForm, decode_object, end_of_form
from speed_ray.records import Rejected

MAX_OBJECTS = 64  # that are tried in one reply: each can cost a reading of all that follows

# A model that does not stop there writes the next turn of the conversation as well.
_END_OF_TURN = re.compile(r"<\|(?:im_end|eot_id|eom_id|endoftext|end_of_text|END_OF_TURN_TOKEN)\|>|<end_of_turn>|</s>")
_FENCE = re.compile(r"```\w*|</?\w+>")
_SENTENCE_END = re.compile(r"[.!?]\s|\n")
# What is said before an object that is no later try: "Alternatively:", "Option 2:", "A weaker example would be".
_ONE_MORE = re.compile(
    r"""\balternativ | \b(?:another|option|variant)\b | \b(?:answer|example|object|version)\W{0,3}\d
    | ^\W*(?:or|oder|ou|または|或者)\b | ^\W*(?:and|und|et)\W*$
    | \b(?:avoid\w*|instead[ ]of|not|than|unlike|e\.g\.)\W*$
    | \b(?:bad|poor|weak|worse|wrong)\w*\W+(?:\w+\W+){0,3}$""",
    re.IGNORECASE | re.VERBOSE,
)


class _Decoded(NamedTuple):
    """Hold a decoded object and where it stands in the reply."""

    start: int
    end: int
    fields: dict[str, Any]


def find_object(text: str, names: tuple[str, ...], is_placeholder: Callable[[str], bool]) -> dict[str, Any]:
    """Decode the object of a reply that is its answer, with all of `names` where one has them. Raises Rejected.

    Of several the last counts, those left out of which every text is a placeholder. Two that follow each other without
    a word between them, or of which the last is offered beside the other ("Alternatively:") or spoken of in a sentence
    ("{...} would be vague"), are no drafts of one answer: which of them is meant, nobody can tell.
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
    end alone, and all before that is the thought. `answer` is where the last thought ends. A thought under a heading
    ends at the answer's heading; where there is none, it holds all that follows but an object that ends the reply.
    """

    def __init__(self, text: str, names: tuple[str, ...]) -> None:
        self.found: list[_Decoded] = []
        self.answer = 0
        self._text = text
        self._event, self._unquoted = _patterns(names)
        self._tried = 0
        self._thoughts_end = True  # False where no end of a thought follows
        self._open_heading: int | None = None  # of a thought that ends at no heading

    def run(self) -> None:
        """Scan the whole reply. Raises Rejected where an object cannot be decoded, or a thought does not end."""
        place: int | None = self._skip_bare_harmony()
        while place is not None and (event := self._event.search(self._text, place)):
            if event["object"]:
                place = self._read_object(event.start())
            elif event["end"]:
                place = self._end_thought(event)
            elif event["heading"]:
                place = self._skip_headed_thought(event)
            else:
                place = self._skip_thought(event)
        self._drop_open_thought()

    def _skip_bare_harmony(self) -> int:
        """Skip the analysis of gpt-oss as engines write it that drop special tokens: analysisWe…assistantfinal{…}."""
        if not thoughts.BARE_ANALYSIS.match(self._text):
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
            fields, end = decode_object(self._text, start)
        except Rejected as rejected:
            form = end_of_form(self._text, start) if isinstance(rejected, UnfinishedForm) else None
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
        ended = thoughts.END_OF_THOUGHT.search(self._text, start)
        return ended.end() if ended and self._unquoted.search(self._text, ended.end()) else None

    @functools.cached_property
    def _last_opening(self) -> int:
        return max((each.start() for each in self._event.finditer(self._text) if each["object"]), default=-1)

    def _end_thought(self, mark: re.Match[str]) -> int | None:
        """Drop the objects before the end of a thought, unless the reply begins with one and has none after it."""
        if self.found and self._text.startswith("{") and mark.start() > self._last_opening:
            return None
        self.found, self.answer, self._open_heading = [], mark.end(), None
        return mark.end()

    def _skip_thought(self, mark: re.Match[str]) -> int | None:
        """Return the end of the thought that begins here. A mark without an end counts only where a line begins."""
        ended = thoughts.END_OF_THOUGHT.search(self._text, mark.end()) if self._thoughts_end else None
        if ended is not None:
            self.answer, self._open_heading = ended.end(), None
            return ended.end()
        self._thoughts_end = False
        before = self._text[max(0, mark.start() - 80) : mark.start()].rstrip(" \t")
        if before and before[-1] not in "\n>":
            return mark.end()
        if not self.found:
            raise _still_thinking()
        return None

    def _skip_headed_thought(self, heading: re.Match[str]) -> int:
        """Return where the answer's heading ends, which an object follows, else where this thought begins."""
        if self._open_heading is not None:
            return heading.end()
        ended = thoughts.END_OF_HEADED_THOUGHT.search(self._text, heading.end())
        if ended is None or ended.end() > self._last_opening:
            self._open_heading = heading.start()
            return heading.end()
        self.answer = ended.end()
        return ended.end()

    def _drop_open_thought(self) -> None:
        """Drop the objects of a thought under a heading that has no end, unless the last of them ends the reply."""
        if self._open_heading is None or not self.found or not _has_words(self._text[self.found[-1].end :]):
            return
        self.found = [each for each in self.found if each.end <= self._open_heading]
        if not self.found:
            raise _still_thinking()


@functools.cache
def _patterns(names: tuple[str, ...]) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return the patterns of the next event of a scan, and of an opening that no string of a JSON object can hold.

    In a string a quote is written \". An opening that the reply's end cuts off is an event as well.
    """
    either = "|".join(map(re.escape, names))
    opening = rf"""\{{\s*+(?:["'](?:{either})["']\s*+: | (?:["']\w*+["']?\s*+)?\Z)"""
    event = rf"""(?=[<\[{{◁])(?:
        (?P<object>{opening}) | (?i:(?P<begin>{thoughts.BEGINS}) | (?P<end>{thoughts.ENDS})))
        | (?P<heading>(?i:{thoughts.HEADING_BEGINS}))"""
    return re.compile(event, re.MULTILINE | re.VERBOSE), re.compile(rf"""\{{\s*+"(?:{either})"\s*+:""")


def _still_thinking() -> Rejected:
    return Rejected("truncated", "the reply ends while the model is still thinking")


def _decode_any(text: str, answer: int) -> dict[str, Any]:
    opening = ANY_OPENING.search(text, answer)
    if opening is None:
        raise Rejected("not_json", f"the reply holds no JSON object{' after its thoughts' if answer else ''}")
    return decode_object(text, opening.start())[0]


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
    if len(written) < 2 or written[-2].fields == written[-1].fields:
        return
    between = text[written[-2].end : written[-1].start]
    said = _SENTENCE_END.split(_FENCE.sub("", between[-200:]).strip())[-1]
    behind = text[written[-1].end : written[-1].end + 200].partition("\n")[0]
    is_mentioned = _has_words(said) and not said.endswith(":") and _has_words(behind)  # within a sentence
    if not _has_words(between) or is_mentioned or _ONE_MORE.search(said):
        raise Rejected("several_objects", f"the reply lists {len(written)} objects: which is the answer?")


def _has_words(text: str) -> bool:
    return any(map(str.isalpha, _FENCE.sub("", text)))
