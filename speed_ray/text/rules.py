"""Check texts by rules that several kinds of example share. Each returns (reason, detail) of a broken rule, or None.

They look for what small models get wrong and what poisons an embedder: a label that gives itself away, a document that
repeats its query, two fields that are one text. They compare words, not strings, in any script, and never change a
text. One process reads the replies of a whole endpoint, 1,200 a second, so they are made to be cheap: 15 microseconds
for an example with two documents of sixty words, 90 with reading it and looking at its language (80 and 160 in
Chinese, 180 and 420 in Thai).
"""

import functools
import re
import unicodedata
from collections.abc import Iterable

from speed_ray.text.words import fold, is_unspaced, split_words, word_ends

Broken = tuple[str, str] | None

# A reply of at most 800 tokens (SPEED, appendix B) holds some 600 words, so two documents of 500 words each, which the
# slots ask for, cannot both be whole: beyond this many words a text is long enough whatever was wanted.
ENOUGH = 100
NEAR_VERBATIM = 0.8  # share of a text's word triples found in another, from which it was copied
LIFTED = 0.5  # the same of a text that is to have words of its own
REPEATING = 0.5  # share of a text's words that are not new, from which it goes round in circles
FEWEST_TO_COPY = 4  # words; a shorter query may well stand in a document that nobody copied
FEWEST_UNSPACED_TO_COPY = 6  # where a dictionary makes up to twice as many words of one compound as English has


# What stands in the place of a text and is none in any field: "<a short text>", "[Insert query here]", "(unchanged)".
_NOUN = r"\b(?:answer|document|label|passage|query|sentence|text)\b"
_OPEN, _CLOSE = r"[\[<{(]+\W*", r"[^.<>=/\"\[\](){}]{0,60}[.…]*[\]>})]+"
_ASKS = (
    rf"(?:add|enter|insert|write|your)\b[^.]{{0,40}}{_NOUN}[^.]{{0,20}}\bhere|{_OPEN}your\b[^.]{{1,60}}\bhere{_CLOSE}"
    rf"|{_OPEN}(?:insert|add)\b{_CLOSE}|<[^<>=/\" ]{{1,40}}[ _][^<>=/\"]{{1,80}}>"
    rf"|{_OPEN}(?:[\w'’-]+ ){{0,4}}(?:{_NOUN}|unchanged|unmodified|no changes?|same|as (?:above|before))\b{_CLOSE}"
)
# What says that there is no text. A label may well be one of these.
_SAYS_NOTHING = (
    r"n/a|none|null|tbd|todo|not (?:applicable|available)|unchanged|same as (?:above|before|the original)"
    r"|no changes?(?: (?:is |are )?(?:needed|necessary|required))?"
)
# What JSON schemas and forms have there besides. A label or a short answer may well be one of these.
_NAMES_A_TYPE = r"[a-z0-9]|string|str|text|number|integer|object|array|<\w{1,80}>"
_REQUEST = re.compile(_ASKS)
_REQUEST_OR_NOTHING = re.compile(f"{_ASKS}|{_SAYS_NOTHING}")
_STAND_IN = re.compile(f"{_ASKS}|{_SAYS_NOTHING}|{_NAMES_A_TYPE}")
MAX_STAND_IN_CHARS = 100
# A reader's words for what lies before them. A user who searches has no passage before them.
_BEFORE_ME = re.compile(
    r"\b(?:an?|the|this) (?:given |above |following |provided )?(?:passage|excerpt)\b(?! (?:of|to|from)\b)"
    r"|\bthis (?:text|article|document|paragraph|abstract|paper|study|book)\b"
    r"|\b(?:in|to) the (?:text|article|document|paragraph|abstract)\b|\bthe authors?\b"
    r"|\bthe (?:given|above|following|provided) (?:text|article|document|paragraph|abstract)\b"
)
# What a model says before its answer, in place of it: "Here are two questions:", "Sure! I can help with that."
_LEAD_IN = re.compile(
    r"(?:sure|certainly|of course|okay|here (?:is|are)|here's|i can|i cannot|i can't|i'm sorry|as an ai|let me|"
    r"the (?:query|question|keywords|claim|title)s? (?:is|are|could|would|might))\b"
)


def is_stand_in(text: str) -> bool:
    """Check whether a text says nothing or only that one is to stand there. Alone, a label may well be "A"."""
    return written("", text) is not None or _matches(text, _STAND_IN)


def no_stand_in(name: str, text: str, is_label: bool = False) -> Broken:
    """Check that a text asks for none in its place, and, but for a label, does not say that there is none."""
    if _matches(text, _REQUEST if is_label else _REQUEST_OR_NOTHING):
        return "placeholder", f"{name} holds {text!r}, which stands in the place of a text"
    return None


@functools.lru_cache(maxsize=16)  # the checks of one example take each of its texts up to four times
def is_plain(text: str) -> str:
    """Normalise case, spaces and Unicode's form, so that texts that differ in nothing else are equal."""
    return " ".join(fold(text).split())


def first(found: Iterable[Broken]) -> Broken:
    """Return the first rule that is broken, evaluating no more of them than needed."""
    return next((broken for broken in found if broken), None)


def written(name: str, text: str) -> Broken:
    """Check that a text says something: it has a letter or digit, and no character was lost when it was decoded."""
    if not any(map(str.isalnum, text)):
        return "no_letters", f"{name} has neither a letter nor a digit"
    if "\ufffd" in text:
        return "lost_character", f"{name} holds U+FFFD, which stands for a character that was lost"
    return None


def distinct(fields: dict[str, str]) -> Broken:
    """Check that no two fields hold the same text; case and spacing make no difference, "C++" and "C#" do."""
    seen: dict[str, str] = {}
    for name, text in fields.items():
        other = seen.setdefault(is_plain(text), name)
        if other != name:
            return "same_text", f"{other} and {name} hold the same text"
    return None


def no_schema_words(fields: dict[str, str]) -> Broken:
    """Check that no field's name has leaked into a text: `user_query` anywhere, `S1:`, or `"label":` as in JSON."""
    leak = _names_leaking(tuple(fields))
    for name, text in fields.items():
        # Looking for plain names first is ten times as fast, and hardly a text holds any.
        if any(known in text for known in fields) and (found := leak.search(text)):
            return "schema_words", f"{name} holds {found.group().strip()!r}, which belongs to the reply's format"
    return None


def length(name: str, text: str, least: int | None, most: int | None) -> Broken:
    """Check a text's length in words against its slot: not under half of `least`, not over twice `most`."""
    count = len(split_words(text))
    if least is not None and count < min(least / 2, ENOUGH):
        return "too_short", f"{name} has {count} words, wanted at least {least}"
    if most is not None and count > 2 * most:
        return "too_long", f"{name} has {count} words, wanted at most {most}"
    return None


def not_copied(query: tuple[str, str], positive: tuple[str, str]) -> Broken:
    """Check that the query, a (name, text), is not repeated in the positive, verbatim or nearly."""
    if len(split_words(query[1])) < fewest_to_copy(query[1]):
        return None
    shared = _shared_triples(query[1], positive[1])
    if shared < NEAR_VERBATIM:
        return None
    return "copied_query", f"{positive[0]} repeats {shared:.0%} of {query[0]}'s word triples"


def own_words(name: str, text: str, passage: str) -> Broken:
    """Check that less than half of a text's word triples stand in the passage that it was written about.

    A text of up to twice `fewest_to_copy` less two words passes: keywords and names are what a passage has.
    """
    if len(split_words(text)) < 2 * fewest_to_copy(text) - 2:
        return None
    shared = _shared_triples(text, passage)
    if shared < LIFTED:
        return None
    return "copied", f"{shared:.0%} of {name}'s word triples stand in the passage"


def copied_share(text: str, passage: str) -> float:
    """Return the share of a text's word triples that stand in a passage; 0 for a text of fewer than three words."""
    return _shared_triples(text, passage) if len(split_words(text)) >= 3 else 0.0


def _shared_triples(text: str, other: str) -> float:
    asked, answered = split_words(text), split_words(other)
    wanted = set(zip(asked, asked[1:], asked[2:], strict=False))
    return len(wanted.intersection(zip(answered, answered[1:], answered[2:], strict=False))) / len(wanted)


def not_repeating(name: str, text: str) -> Broken:
    """Check that more than half of a text's words are new in it: small models repeat a phrase until they are cut."""
    words = split_words(text)
    repeated = 1 - len(set(words)) / max(1, len(words))
    if len(words) < fewest_to_copy(text) or repeated < REPEATING:
        return None
    return "repeats", f"{repeated:.0%} of {name}'s words stand in it before"


def about_passage(name: str, text: str, passage: str, least: int | None, most: int | None) -> Broken:
    """Check that a text that a model wrote about a passage stands alone, in words of its own, at the length wanted."""
    return (
        no_schema_words({name: text})
        or stands_alone(name, text)
        or not_repeating(name, text)
        or own_words(name, text, passage)
        or length(name, text, least, most)
    )


def stands_alone(name: str, text: str) -> Broken:
    """Check that a text is no talk about itself or about the passage that its writer had to read (in English)."""
    plain = is_plain(text)
    if plain.endswith(":") or _LEAD_IN.match(plain):
        return "prose", f"{name} is what is said before an answer"
    if found := _BEFORE_ME.search(plain):
        return "names_passage", f"{name} speaks of {found.group()!r}, which who searches has not read"
    return None


def not_naming(text: tuple[str, str], labels: dict[str, str]) -> Broken:
    """Check that no label stands in the text, a (name, text), as whole words."""
    haystack = is_plain(text[1])
    for name, label in labels.items():
        if _stands_in(is_plain(label), haystack):
            return "label_in_text", f"{text[0]} holds {name} {label!r}"
    return None


def fewest_to_copy(text: str) -> int:
    """Return the number of words from which a text that stands in another one counts as copied."""
    return FEWEST_UNSPACED_TO_COPY if is_unspaced(text) else FEWEST_TO_COPY


def _matches(text: str, form: re.Pattern[str]) -> bool:
    return len(text) <= MAX_STAND_IN_CHARS and form.fullmatch(is_plain(text).rstrip(".!")) is not None


def _stands_in(needle: str, haystack: str) -> bool:
    start, ends = haystack.find(needle), None
    while start >= 0:
        if ends is None:
            ends = word_ends(haystack) if is_unspaced(haystack) else set()
        end = start + len(needle)
        if not (_is_inside_word(haystack, start, ends) or _is_inside_word(haystack, end, ends)):
            return True
        start = haystack.find(needle, start + 1)
    return False


def _is_inside_word(text: str, place: int, ends: set[int]) -> bool:
    """Test whether a word goes on across a place in a text; `ends`: where words end in a script without spaces."""
    left, right = text[place - 1 : place], text[place : place + 1]
    if not (left and right and _is_of_word(left) and _is_of_word(right)):
        return False
    return place not in ends if is_unspaced(left) or is_unspaced(right) else True


def _is_of_word(character: str) -> bool:
    return character.isalnum() or unicodedata.category(character)[0] == "M"  # a vowel sign is no letter by itself


@functools.cache
def _names_leaking(names: tuple[str, ...]) -> re.Pattern[str]:
    # `label` and `input` are ordinary words and leak only where a colon makes them a key; `user_query` is no word.
    made_up = "|".join(re.escape(name) for name in names if "_" in name)
    numbered = "|".join(re.escape(name) for name in names if any(c.isdigit() for c in name))
    keys = "|".join(map(re.escape, names))
    patterns = [rf"\A\W*(?:{keys})[\"'*`]*\s*:", rf"[\"'](?:{keys})[\"']\s*:"]
    if made_up:
        patterns.append(rf"\b(?:{made_up})\b")
    if numbered:
        patterns.append(rf"\b(?:{numbered})\s*:")
    return re.compile("|".join(patterns))
