"""Split a text into sentences by ICU's rules, in any language: the pieces joined are the text again."""

import re
from collections.abc import Iterator

from icu4py.breakers import SentenceBreaker
from icu4py.locale import Locale

LONGEST = 10_000  # characters; what has no sentences, such as a list of numbers, is cut at spaces
_LOCALE = Locale("en@ss=standard")  # "Mr." ends no sentence; other languages' rules are the same
_WRAP = re.compile(r"(?<=[^\n])\n(?=[^\W\d_])")  # ICU ends a sentence at every line; a wrapped one goes on
_STRETCH = re.compile(rf"\S{{{LONGEST}}}|.{{1,{LONGEST}}}(?:\s|$)|.{{1,{LONGEST}}}", re.DOTALL)


def split_sentences(text: str) -> Iterator[str]:
    """Yield the sentences of a text, each with the spaces after it."""
    start = 0
    for sentence in SentenceBreaker(_WRAP.sub(" ", text), _LOCALE):
        end = start + len(sentence)
        if len(sentence) > LONGEST:
            yield from _STRETCH.findall(text[start:end])
        else:
            yield text[start:end]
        start = end
