"""Define the miniature world: its topics, their siblings, and the meaning of every word.

A word stands in one topic, for one concept, on one side: queries use a concept's "a" word, documents its "b" word.
So a query and its answer share few words while meaning the same, and word overlap alone does not find the answer.
"""

import hashlib
import re
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from typing import Any, Literal

import yaml

Side = Literal["a", "b"]
Part = Literal["noun", "verb", "adjective"]


@dataclass(frozen=True)
class Concept:
    """Holds one meaning within one topic, and its word on each side."""

    topic: str
    part: Part
    a: str
    b: str

    def word(self, side: Side) -> str:
        """Return the word that this side uses."""
        return self.a if side == "a" else self.b


@dataclass(frozen=True)
class Topic:
    """Holds one topic: 10 nouns, 5 verbs, 5 adjectives, and the words that its whole domain shares.

    `name` is what a person calls it ("baking"), `wider` the part of the path above ("kitchen").
    """

    path: str
    name: str
    wider: str
    nouns: tuple[Concept, ...]
    verbs: tuple[Concept, ...]
    adjectives: tuple[Concept, ...]
    shared: tuple[str, ...]

    @property
    def concepts(self) -> tuple[Concept, ...]:
        """Return all the topic's concepts."""
        return self.nouns + self.verbs + self.adjectives


def topics() -> list[str]:
    """Return the 24 topic paths of the world, in a fixed order: what `miniature://topics` reads."""
    return list(_world())


def topic(path: str) -> Topic:
    """Return a topic. A path from outside the world gets general words, so that any topic list can be run."""
    return _world().get(path) or _outside(path, block=0)


def siblings(path: str) -> list[Topic]:
    """Return the other topics of the same domain: where hard negatives and misleading labels come from."""
    if path not in _world():
        return [_outside(path, block=1)]
    domain = path.split("/")[0]
    return [other for other in _world().values() if other.path.split("/")[0] == domain and other.path != path]


def tokens(text: str) -> list[str]:
    """Split text to its words, lowercase, without digits and punctuation."""
    return re.findall(r"[^\W\d_]+", text.lower())


def lexicon(path: str) -> dict[str, Concept]:
    """Return what each word means to a reader of this topic: all words of the world, and those of an outside topic."""
    return _lexicon("" if path in _world() else path)


def digest() -> str:
    """Hash all the words: another world, another digest."""
    return hashlib.blake2b(repr(_words()).encode(), digest_size=8).hexdigest()


@cache
def _words() -> dict[str, Any]:
    """Read words.yaml, whose comments describe it."""
    words: dict[str, Any] = yaml.safe_load(resources.files(__package__).joinpath("words.yaml").read_bytes())
    return words


@cache
def _world() -> dict[str, Topic]:
    found = {}
    for block in _words()["topics"].strip().split("\n\n"):
        path, *lines = block.split("\n")
        domain, wider, name = path.split("/")
        found[path] = _build(path, name.lower(), wider.lower(), lines, _words()["domains"][domain])
    return found


@lru_cache(maxsize=1024)
def _lexicon(outside: str) -> dict[str, Concept]:
    known = [*_world().values(), *((topic(outside), *siblings(outside)) if outside else ())]
    return {word: concept for each in known for concept in each.concepts for word in (concept.a, concept.b)}


@lru_cache(maxsize=1024)
def _outside(path: str, block: int) -> Topic:
    """Build a topic from outside the world: from block 0 of `outside` the topic itself, from block 1 its sibling."""
    parts = [" ".join(tokens(part.replace("_", " "))) for part in path.split("/")]
    parts = [part for part in parts if part] or ["this"]
    own, wider = parts[-1], parts[-2] if len(parts) > 1 else "general"
    header, *lines = _words()["outside"].strip().split("\n\n")[block].split("\n")
    name = own if block == 0 else f"{wider} {header.split('/')[-1].lower()}"
    return _build(path if block == 0 else f"{path} ({name})", name, wider, lines, _words()["outside_domain"])


def _build(path: str, name: str, wider: str, lines: list[str], shared: str) -> Topic:
    first, second, verbs, adjectives = (line.split() for line in lines)

    def concepts(part: Part, pairs: list[str]) -> tuple[Concept, ...]:
        return tuple(Concept(path, part, *pair.split("/")) for pair in pairs)

    return Topic(
        path,
        name,
        wider,
        concepts("noun", first + second),
        concepts("verb", verbs),
        concepts("adjective", adjectives),
        tuple(shared.split()),
    )
