"""Generate sentences of the miniature world: patterns, and the thoughts (concepts) that fill them.

Patterns have places for a noun {n}, another noun {m}, a verb {v}, an adjective {a} and a word {d} of the whole domain.
Nouns may be singular, plural or a substance and verbs stand in their base form, so any word fits any pattern. Two
banks with different small words keep a query and its document apart in wording.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from speed_ray.miniature.world import Concept, Side, Topic

STATEMENTS: dict[Side, tuple[str, ...]] = {
    "a": (
        "You can {v} the {a} {n} with the {m}.",
        "The {a} {n} will often {v} the {m}.",
        "Before you {v} the {n}, think about the {a} {m}.",
        "Most people {v} the {n} because the {m} may seem {a}.",
        "It takes time to {v} the {a} {n} near the {m}.",
        "When the {n} gets {a}, you should {v} the {m} again.",
        "Without the {n} nobody could {v} the {a} {m}.",
        "You may {v} the {n} if the {m} looks {a}.",
        "For the {d}, use the {a} {n} and {v} the {m}.",
        "In the {d} people {v} one {a} {n} for the {m}.",
        "You will need the {a} {n} if you {v} the {m}.",
        "The {d} was about how to {v} the {a} {n} and the {m}.",
    ),
    "b": (
        "Experts {v} this {a} {n} next to that {m}.",
        "Try to {v} any {a} {n} before touching its {m}.",
        "Every {n} must stay {a} while someone helps to {v} its {m}.",
        "There is no reason to {v} this {m} as long as its {n} remains {a}.",
        "Some prefer {a} {n} over {m}, then {v} both.",
        "Beginners first {v} their {n}, then turn to {a} {m}.",
        "Our {d} knows which {a} {n} might {v} that {m}.",
        "Much depends on whether {m} and {n} are {a} enough to {v}.",
        "At times {a} {n} and {m} go together, so {v} them slowly.",
        "One good habit is to {v} each {n} until its {m} appears {a}.",
        "Nothing helps more than {a} {n} for those who {v} their {m}.",
        "From one {d} to another, {n} stays {a} and others {v} its {m}.",
    ),
}

SHORT_QUESTIONS = ("{v} {a} {n}", "{a} {n} {m}", "{n} with {m}", "{v} {n} {m}", "{a} {n} for {d}")  # under 5 words
QUESTIONS = (  # 5 to 15 words
    "how do i {v} the {a} {n}",
    "best way to {v} the {n} and the {m}",
    "why does my {n} look so {a} to the {d}",
    "can you {v} the {a} {n} with the {m}",
    "what to do with the {a} {n} and the {m}",
    "which {n} is {a} enough for the {d}",
    "is the {a} {n} good for the {m}",
    "when should i {v} the {a} {n}",
)
LONG_QUESTIONS = (  # at least 10 words
    "what should i know about the {a} {n} before i {v} the {m}",
    "is it true that the {a} {n} can {v} the {m} for the {d}",
    "how long does it take to {v} the {n} when the {m} is {a}",
    "i want to {v} the {a} {n} at the {d} but my {m} is missing",
    "who can help me to {v} the {n} and find the {a} {m}",
)
PHRASES: dict[Side, tuple[str, ...]] = {
    "a": ("the {a} {n} and the {m}", "how to {v} the {a} {n}", "the {a} {n} with the {m}", "the {n} or the {a} {m}"),
    "b": (
        "some {a} {n} plus its {m}",
        "what helps to {v} any {a} {n}",
        "{a} {n} next to {m}",
        "this {n}, that {a} {m}",
    ),
}


@dataclass(frozen=True)
class Thought:
    """Holds what one sentence is about: four concepts, and a word that the whole domain shares."""

    noun: Concept
    other: Concept
    verb: Concept
    adjective: Concept
    shared: str

    @property
    def concepts(self) -> tuple[Concept, ...]:
        """Return the four concepts."""
        return (self.noun, self.other, self.verb, self.adjective)


def think(topic: Topic, rng: random.Random, about: Sequence[Concept] = ()) -> Thought:
    """Draw a thought (two nouns, a verb, an adjective) on a topic, which holds the concepts of `about` if any."""
    nouns = [*_part(about, "noun"), *rng.sample(topic.nouns, len(topic.nouns))]
    other = next(noun for noun in nouns if noun != nouns[0])
    verb = [*_part(about, "verb"), rng.choice(topic.verbs)][0]
    adjective = [*_part(about, "adjective"), rng.choice(topic.adjectives)][0]
    return Thought(nouns[0], other, verb, adjective, rng.choice(topic.shared))


def say(pattern: str, thought: Thought, side: Side) -> str:
    """Fill a pattern with a thought in the words of one side."""
    n, m, v, a = (concept.word(side) for concept in thought.concepts)
    return pattern.format(n=n, m=m, v=v, a=a, d=thought.shared)


def mix(pattern: str, own: Thought, other: Thought, side: Side) -> str:
    """Fill a pattern half with another thought, in the words of one side, half with one's own, in query words."""
    n, a = own.noun.a, own.adjective.a
    return pattern.format(n=n, m=other.noun.word(side), v=other.verb.word(side), a=a, d=own.shared)


def used(pattern: str, thought: Thought) -> list[Concept]:
    """Return the concepts of a thought that a pattern really mentions."""
    places = zip(("{n}", "{m}", "{v}", "{a}"), thought.concepts, strict=True)
    return [concept for place, concept in places if place in pattern]


def _part(concepts: Sequence[Concept], part: str) -> list[Concept]:
    return [concept for concept in concepts if concept.part == part]
