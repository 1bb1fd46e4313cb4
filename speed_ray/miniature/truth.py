"""Score how true an example is in the miniature world, from 0 to 1.

    score = min(about(query), about(positive)) x product of the other parts' p ** (1 / number of parts)

where the first factor is 0 for text of no known words, and a part p = 0.1 + 0.9 * share never takes all. The parts:

    classification   the label names the topic; the misleading label names a sibling
    sts              S2 keeps S1's meaning; in other words; S3 keeps less of it, but stays in the domain
    retrieval        query in query words; document in document words, answering the query, without its very words;
    (and matching)   the hard negative is of use, less than the positive, within the domain (matching has none)

All parts saturate where the scripted teacher's own examples stand, so that these score about 1.
"""

import math
from collections.abc import Container, Sequence

from speed_ray.miniature import grammar, world
from speed_ray.miniature.world import Concept, Side, Topic

SMALL_WORDS = frozenset(
    word
    for bank in (
        *grammar.STATEMENTS.values(),
        *grammar.PHRASES.values(),
        grammar.SHORT_QUESTIONS,
        grammar.QUESTIONS,
        grammar.LONG_QUESTIONS,
    )
    for pattern in bank
    for word in world.tokens(pattern.format(n="", m="", v="", a="", d=""))
)


def truth_score(kind: str, topic: str, query: str, positive: str, negatives: Sequence[str]) -> float:
    """Score one example of any kind as the module's docstring defines it."""
    if kind == "classification":
        gate = about(query, topic)
        parts = [truth_names(positive, world.topic(topic)), *(misleads(negative, topic) for negative in negatives[:1])]
    elif kind == "sts":
        gate = min(about(query, topic), about(positive, topic))
        near = similarity(query, positive, topic)
        parts = [near, rephrased(query, positive, topic)]
        parts += [
            _at_most((near - similarity(query, far, topic)) / 0.3) * of_domain(far, topic) for far in negatives[:1]
        ]
    else:
        gate = min(about(query, topic), about(positive, topic))
        parts = [
            _at_most(side(query, topic, "a") / 0.9),
            _at_most(side(positive, topic, "b") / 0.9),
            _at_most(answers(query, positive, topic) / 0.9),
            rephrased(query, positive, topic),
            *(almost(query, positive, negative, topic) for negative in negatives[:1]),
        ]
    return gate * math.prod((0.1 + 0.9 * part) ** (1 / len(parts)) for part in parts)


def about(text: str, topic: str) -> float:
    """Score how much a text is on the topic: share of topic words (0.8 is full), their density, and readability."""
    found = meant(text, topic)
    words = world.tokens(text)
    if not found:
        return 0.0
    return _at_most(_share(found, {topic}) / 0.8) * _at_most(len(found) / len(words) / 0.2) * readable(text, topic)


def readable(text: str, topic: str) -> float:
    """Score the share of a text's words that the world knows, less for text that goes round in circles."""
    words = world.tokens(text)
    if not words:
        return 0.0
    named = {
        word
        for each in _family(topic)
        for name in (each.name, each.wider, *each.shared)
        for word in world.tokens(name)
    }
    known = sum(word in world.lexicon(topic) or word in SMALL_WORDS or word in named for word in words) / len(words)
    triples = list(zip(words, words[1:], words[2:], strict=False))
    fresh = len(set(triples)) / len(triples) if triples else 1.0
    return _at_most(known / 0.95) * _at_most(fresh / 0.6)


def side(text: str, topic: str, wanted: Side) -> float:
    """Return the share of a text's topic words that belong to one side."""
    lexicon = world.lexicon(topic)
    own = [word for word in world.tokens(text) if word in lexicon and lexicon[word].topic == topic]
    return sum(lexicon[word].word(wanted) == word for word in own) / len(own) if own else 0.0


def answers(query: str, text: str, topic: str) -> float:
    """Return the share of the query's concepts that a text mentions, in any words."""
    asked = {concept for concept in meant(query, topic) if concept.topic == topic}
    return len(asked & set(meant(text, topic))) / len(asked) if asked else 0.0


def rephrased(query: str, text: str, topic: str) -> float:
    """Return the share of the query's topic words that a text does not repeat."""
    lexicon = world.lexicon(topic)
    asked = {word for word in world.tokens(query) if word in lexicon}
    return len(asked - set(world.tokens(text))) / len(asked) if asked else 0.0


def similarity(one: str, two: str, topic: str) -> float:
    """Return the Dice overlap of two texts' concepts, from 0 to 1, in any words."""
    first, second = set(meant(one, topic)), set(meant(two, topic))
    return 2 * len(first & second) / (len(first) + len(second)) if first or second else 0.0


def of_domain(text: str, topic: str) -> float:
    """Return the share of a text's topic words that belong to the topic or a sibling."""
    return _share(meant(text, topic), {each.path for each in _family(topic)})


def almost(query: str, positive: str, negative: str, topic: str) -> float:
    """Score a hard negative: in the domain, of some use (half counts without), of less than the positive."""
    on_topic = _share(meant(positive, topic), {topic}) - _share(meant(negative, topic), {topic})
    less = _at_most(on_topic / 0.4)
    useful = _at_most(answers(query, negative, topic) / 0.3)
    return of_domain(negative, topic) * less * (0.5 + 0.5 * useful) * readable(negative, topic)


def truth_names(label: str, subject: Topic) -> float:
    """Return the share of a label's words (without "and") that name a topic or are words of it."""
    own = {*world.tokens(subject.name), *world.tokens(subject.wider), *_words_of(subject)}
    words = [word for word in world.tokens(label) if word != "and"]
    return sum(word in own for word in words) / len(words) if words else 0.0


def misleads(label: str, topic: str) -> float:
    """Score how well a label names a sibling, and nothing that only the topic itself is called."""
    subject = world.topic(topic)
    own = {*world.tokens(subject.name), *_words_of(subject)}
    words = [word for word in world.tokens(label) if word != "and"]
    right = sum(word in own for word in words) / len(words) if words else 0.0
    return _at_most(max(truth_names(label, sibling) for sibling in world.siblings(topic)) - right)


def _words_of(subject: Topic) -> set[str]:
    return {word for concept in subject.concepts for word in (concept.a, concept.b)}


def meant(text: str, topic: str) -> list[Concept]:
    """Return the concepts of a text's topic words, in their order."""
    lexicon = world.lexicon(topic)
    return [lexicon[word] for word in world.tokens(text) if word in lexicon]


def _share(concepts: Sequence[Concept], topics: Container[str]) -> float:
    return sum(concept.topic in topics for concept in concepts) / len(concepts) if concepts else 0.0


def _family(topic: str) -> list[Topic]:
    return [world.topic(topic), *world.siblings(topic)]


def _at_most(share: float) -> float:
    return min(1.0, max(0.0, share))
