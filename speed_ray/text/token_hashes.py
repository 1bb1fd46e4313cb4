"""Hash texts into arrays of word hashes, a block at a time: near-duplicates and contamination are found by these.

On one core 60 words of English take 7 microseconds from text to hashes; splitting them and hashing each in Rust takes
25. The words are those of words.py, so that case, spacing and punctuation make no difference and Chinese and Thai have
word pairs too. An ASCII text is split here: between letters and digits, as words.py does it.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from speed_ray.text.words import split_words

Hashes = np.ndarray[Any, np.dtype[np.uint64]]
Places = np.ndarray[Any, np.dtype[np.int64]]

BLOCK = 64 << 10  # bytes hashed at once: the arrays made of them stay in a core's cache, which halves the time
LETTERS = 64  # places in a word that count as different; a longer word goes around
END = "\0"  # of a text
SPACE, NEWLINE = b" \n"

# To lower case and nothing but ASCII letters, digits and all that is not ASCII; a newline only where a text ends.
_PLAIN = bytes(
    c if c >= 128 else NEWLINE if chr(c) == END else ord(chr(c).lower()) if chr(c).isalnum() else SPACE
    for c in range(256)
)
# A random number for each letter in each place; a word is their sum.
_LETTER: Hashes = np.frombuffer(hashlib.shake_256(b"speed_ray words").digest(LETTERS * 256 * 8), np.uint64)
_ODD = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Words:
    """Hold the words of some texts: all hashes in order (words,), and the index of each one's text (words,)."""

    hashes: Hashes
    owners: Places
    texts: int

    def counts(self) -> Places:
        """Return the number of words of each text, an integer array (texts,)."""
        return np.bincount(self.owners, minlength=self.texts)

    def grams(self, n: int) -> "Words":
        """Hash each run of n words to one number; a text with fewer words has none."""
        if len(self.hashes) < n:
            return Words(self.hashes[:0], self.owners[:0], self.texts)
        last = len(self.hashes) - n + 1
        mixed = self.hashes[:last]
        for place in range(1, n):
            mixed = mixed * _ODD + self.hashes[place : last + place]
        whole = self.owners[:last] == self.owners[n - 1 :]
        return Words(mixed[whole], self.owners[:last][whole], self.texts)


def hash_tokens(texts: Sequence[str]) -> Words:
    """Hash every word of some texts, without case and punctuation."""
    hashes, counts = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    for block in _blocks(texts):
        of_block, of_texts = _hash(block)
        hashes.append(of_block)
        counts.append(of_texts)
    owners = np.repeat(np.arange(len(texts)), np.concatenate(counts))
    return Words(np.concatenate(hashes), owners, len(texts))


def _blocks(texts: Sequence[str]) -> Iterator[bytes]:
    """The texts in plain form, each ended by a newline, as many together as make a block."""
    texts = [text if text.isascii() else " ".join(split_words(text)) for text in texts]
    together = max(1, BLOCK * len(texts) // (sum(map(len, texts)) + 1))
    for start in range(0, len(texts), together):
        block = texts[start : start + together]
        joined = END.join([*block, ""])
        if joined.count(END) != len(block):
            joined = END.join([*(text.replace(END, " ") for text in block), ""])
        yield joined.encode().translate(_PLAIN)


def _hash(block: bytes) -> tuple[Hashes, Places]:
    """Return the hashes of a block's words, and how many each of its texts has."""
    letters = np.frombuffer(block, np.uint8)
    inside = letters > SPACE
    edges = np.flatnonzero(np.diff(inside, prepend=False))  # the newline at the end closes the last word
    starts, lengths = edges[::2], edges[1::2] - edges[::2]
    before = np.searchsorted(starts, np.flatnonzero(letters == NEWLINE))
    counts = np.diff(before, prepend=0)
    if not len(starts):
        return np.empty(0, np.uint64), counts
    begins = np.cumsum(lengths) - lengths
    places = np.arange(int(lengths.sum())) - np.repeat(begins, lengths)
    values = _LETTER[(places % LETTERS << 8) | letters[inside]]
    return np.add.reduceat(values, begins), counts
