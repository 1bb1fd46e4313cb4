"""Split documents into passages of a number of tokens: at headings first, then between sentences.

A section that fits, with all below it, is one passage; of a larger one its own text and each section below are split
in turn. A text is filled into as few passages as it takes, of about the same length each. A sentence longer than a
passage is cut between tokens, between words where there are any.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tokenizers import Tokenizer

from speed_ray.documents.headings import find_headings
from speed_ray.documents.sentences import split_sentences


class Span(NamedTuple):
    """Hold a passage: where it lies in its document, its tokens, and the headings above it, outermost first."""

    start: int
    end: int
    tokens: int
    headings: tuple[str, ...] = ()


@dataclass
class Section:
    """Hold the text of a document up to the next heading, in pieces no longer than a passage."""

    level: int
    heading: str
    start: int
    end: int
    sentences: list[str]
    heading_tokens: int = 0
    pieces: list[Span] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """Return the tokens of its text."""
        return sum(piece.tokens for piece in self.pieces)


class Splitter:
    """Split documents by one tokenizer into passages of at most `tokens`, each repeating `overlap` of the last."""

    def __init__(self, tokenizer: Tokenizer, tokens: int, overlap: int = 0) -> None:
        self._tokenizer = tokenizer
        self._tokens = tokens
        self._overlap = overlap

    def split_documents(self, texts: Sequence[str]) -> list[list[Span]]:
        """Split each text; a passage without a letter or digit is left out. One call tokenizes them all."""
        documents = [_sections(text) for text in texts]
        self._fill([section for sections in documents for section in sections])
        return [
            [span for span in (_stripped(text, each) for each in self._split(sections, 0, len(sections), ())) if span]
            for text, sections in zip(texts, documents, strict=True)
        ]

    def _fill(self, sections: list[Section]) -> None:
        """Count the tokens of all headings and sentences, and cut what is too long."""
        # A space before the next sentence is counted with that, as it would be in one text; a line break is counted.
        texts = [
            text for each in sections for text in (each.heading, *(one.removesuffix(" ") for one in each.sentences))
        ]
        encoded = iter(self._tokenizer.encode_batch_fast(texts, add_special_tokens=False))
        for section in sections:
            section.heading_tokens = len(next(encoded))
            start = section.start
            for sentence in section.sentences:
                section.pieces += self._pieces(sentence, start, len(next(encoded)))
                start += len(sentence)
            section.sentences = []

    def _pieces(self, sentence: str, start: int, tokens: int) -> Iterator[Span]:
        if tokens <= self._tokens:
            if tokens:  # of line breaks alone nothing is made
                yield Span(start, start + len(sentence), tokens)
            return
        encoding = self._tokenizer.encode(sentence, add_special_tokens=False)
        words = encoding.word_ids
        begins = [*(begin for begin, _ in encoding.offsets), len(sentence)]
        begins[0], first = 0, 0
        while first < len(words):
            last = between = min(first + self._tokens, len(words))
            while last < len(words) and between > first and words[between] == words[between - 1]:
                between -= 1
            last = between if between > first else last
            if begins[last] > begins[first]:  # a character may have several tokens
                yield Span(start + begins[first], start + begins[last], last - first)
            first = last

    def _split(self, sections: list[Section], first: int, last: int, above: tuple[str, ...]) -> Iterator[Span]:
        """Split the section `first` with those below it, up to `last`."""
        own = sections[first]
        headings = (*above, own.heading) if own.heading else above
        tokens = own.tokens + sum(each.heading_tokens + each.tokens for each in sections[first + 1 : last])
        if tokens <= self._tokens:
            yield Span(own.start, sections[last - 1].end, tokens, headings)
            return
        yield from (span._replace(headings=headings) for span in self._pack(own.pieces))
        begin = first + 1
        while begin < last:
            end = begin + 1
            while end < last and sections[end].level > sections[begin].level:
                end += 1
            yield from self._split(sections, begin, end, headings)
            begin = end

    def _pack(self, pieces: list[Span]) -> Iterator[Span]:
        """Join pieces to passages of about one length, as few as it takes."""
        total = sum(piece.tokens for piece in pieces)
        passages = max(1, -(-(total - self._overlap) // (self._tokens - self._overlap)))
        enough = (total + (passages - 1) * self._overlap) / passages
        first = last = 0
        while last < len(pieces):
            tokens = sum(piece.tokens for piece in pieces[first : last + 1])  # one that is new, whatever it repeats
            last += 1
            while last < len(pieces) and tokens < enough and tokens + pieces[last].tokens <= self._tokens:
                tokens += pieces[last].tokens
                last += 1
            yield Span(pieces[first].start, pieces[last - 1].end, tokens)
            if last < len(pieces):
                first = self._repeat_from(pieces, first, last)

    def _repeat_from(self, pieces: list[Span], first: int, last: int) -> int:
        """Return the first piece before `last` that the next passage repeats, which has room for one piece more."""
        room = min(self._overlap, self._tokens - pieces[last].tokens)
        begin = last
        while begin - 1 > first and pieces[begin - 1].tokens <= room:
            room -= pieces[begin - 1].tokens
            begin -= 1
        return begin


def _sections(text: str) -> list[Section]:
    found = list(find_headings(text))
    parts = [(0, "", 0), *((each.level, each.heading, each.end) for each in found)]
    ends = [*(each.start for each in found), len(text)]
    return [
        Section(level, heading, start, end, list(split_sentences(text[start:end])))
        for (level, heading, start), end in zip(parts, ends, strict=True)
    ]


def _stripped(text: str, span: Span) -> Span | None:
    part = text[span.start : span.end]
    if not any(map(str.isalnum, part)):
        return None
    start = span.start + len(part) - len(part.lstrip())
    return span._replace(start=start, end=span.end - len(part) + len(part.rstrip()))
