"""Script the teacher of the miniature world, in every role that a proprietary model has in SPEED.

It answers from a request's context and seed, never from its messages: the same both, the same reply. It writes the
best examples that the world knows (truth about 1), in English whatever language is wanted. A topic from outside
the world is told with general words and its own name. It judges by `truth.score` alone.
"""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from speed_ray import kinds
from speed_ray.engines.base import PromptContext
from speed_ray.kinds.kind import Fields, Slots
from speed_ray.miniature import grammar, truth, world
from speed_ray.miniature.grammar import Thought, mix, say, think, used
from speed_ray.miniature.world import Concept, Side, Topic
from speed_ray.text import rules

MOST_THOUGHTS = 10  # of one query
TRIES = 8  # of a revision
GOOD = 0.8  # truth above which a revision is left at that

_TASKS = {
    "classification": (
        "Tell which part of {name} a note on the {n} and the {m} is about.",
        "Say which craft a person has in mind who wants to {v} the {a} {n}: {name} or one of its neighbours.",
        "Decide who at the {d} should read a message on the {a} {n}, the {name} people or others.",
        "Name the trade, such as {name}, of somebody who writes that the {n} may {v} the {m}.",
        "Sort remarks on the {a} {n} by the kind of work they belong to, {name} among them.",
        "From a complaint about the {m}, work out if {name} or something close to it went wrong.",
        "Recognise {name} in a line that speaks of how to {v} the {n} without its name.",
    ),
    "retrieval": (
        "Given a question on how to {v} the {n}, find a passage on {name} that answers it.",
        "Given what a user types about the {a} {n}, find advice on {name} that helps.",
        "Given a problem with the {n} and the {m}, find a text about {name} which solves it.",
        "Given keywords on {name} such as {n} or {m}, find a page that explains when to {v} them.",
        "Given a wish to {v} something {a}, find the chapter of a {name} handbook that tells how.",
        "Given a doubt about {name}, for example if the {n} is {a}, find a note that settles it.",
        "Given a search for the {m}, find what people of {name} say about the {a} {n}.",
    ),
    "matching_short": (
        "Match a line about the {n} with another way to say it among people of {name}.",
        "Match a short wish to {v} the {a} {n} with the same wish in other words of {name}.",
        "Match how a beginner in {name} calls the {n} and the {m} with what an expert says.",
        "Match a headline on {name} and the {a} {m} with one of the same meaning.",
        "Match a phrase of {name} on the {n} with its plain rewording.",
        "Match a tip to {v} the {m} with a saying from {name} that means as much.",
    ),
    "matching_long": (
        "Match an essay about the {n} with another essay on {name} that makes the same points.",
        "Match a long report on how to {v} the {a} {n} with a {name} guide on the same work.",
        "Match the diary of somebody busy with {name} and the {m} with a reader's retelling of it.",
        "Match a chapter of {name} on the {a} {m} with a chapter by another writer that agrees.",
        "Match a lecture on the {n} and the {m} with notes on {name} that cover it all.",
        "Match a story in which people {v} the {n} with the article on {name} behind it.",
    ),
}


@dataclass(frozen=True)
class ScriptedDraft:
    """Holds an example before it takes its kind's field names. `negative` is "" where the kind has none."""

    query: str
    positive: str
    negative: str


def answer(context: PromptContext, seed: int) -> str:
    """Reply to one prompt as its stage wants it, from its context (stage, kind, topic, ...) and seed, as JSON text."""
    rng = random.Random(seed)
    parts: dict[str, Callable[[PromptContext, random.Random], dict[str, Any]]] = {
        "brainstorm": brainstorm,
        "draft": write_example,
        "propose": write_example,
        "synthesize": write_example,
        "judge": judge,
        "critique": critique,
        "revise": lambda context, rng: critique(context, rng)["revision"],
    }
    return json.dumps(parts[context["stage"]](context, rng), ensure_ascii=False)


def brainstorm(context: PromptContext, rng: random.Random) -> dict[str, Any]:
    """Return {"tasks": [`ask` sentences]} on the topic, each in a form of its own as far as there are forms."""
    topic = world.topic(context["topic"])
    forms = _TASKS[context["kind"]]
    count = context["ask"]
    drawn = [form for _ in range(0, count, len(forms)) for form in rng.sample(forms, len(forms))][:count]
    return {"tasks": [say(form.replace("{name}", topic.name), think(topic, rng), "a") for form in drawn]}


def write_example(context: PromptContext, rng: random.Random) -> Fields:
    """Return one example as the kind's fields."""
    draft = compose(context["kind"], world.topic(context["topic"]), context["slots"], rng)
    return _as_fields(context["kind"], draft)


def judge(context: PromptContext, rng: random.Random) -> dict[str, Any]:
    """Return {"best": number, "worst": number, "reason": sentence} of `candidates` counted from 1, by their truth.

    Of two that are as true their texts decide, never the place.
    """
    scores = [score(context, fields) for fields in context["candidates"]]
    ranks = [(each, *fields.values()) for each, fields in zip(scores, context["candidates"], strict=True)]
    best = max(range(len(ranks)), key=ranks.__getitem__)
    worst = min(range(len(ranks)), key=ranks.__getitem__)
    reason = f"Candidate {best + 1} is true to {scores[best]:.2f} of 1, candidate {worst + 1} to {scores[worst]:.2f}."
    return {"best": best + 1, "worst": worst + 1, "reason": reason}


def critique(context: PromptContext, rng: random.Random) -> dict[str, Any]:
    """Return remarks on relevance, completeness and accuracy of `fields`, and a revision that is at least as true.

    The revision keeps the query where a good example can be made of it; otherwise that is new too.
    """
    kind, topic, fields = kinds.load_kind(context["kind"]), world.topic(context["topic"]), context["fields"]
    query, positive = fields[kind.query], fields[kind.positive]
    thoughts = _thoughts(query, topic, rng)
    rewritten = [
        _as_fields(kind.name, compose(kind.name, topic, context["slots"], rng, thoughts)) for _ in range(TRIES)
    ]
    answered = [{**candidate, kind.query: query} for candidate in rewritten]
    best = max([fields, *answered], key=lambda candidate: score(context, candidate))
    if score(context, best) < GOOD:
        best = max([best, *rewritten], key=lambda candidate: score(context, candidate))
    return {
        "relevance": f"{truth.about(query, topic.path):.0%} of the query is readable and about {topic.name}.",
        "completeness": f"The answer takes up {truth.answers(query, positive, topic.path):.0%} of the query.",
        "accuracy": f"As a whole the example is true to {score(context, fields):.2f} of 1.",
        "revision": best,
    }


def score(context: PromptContext, fields: Fields) -> float:
    """Return the truth of an example that is given as its kind's fields."""
    kind = kinds.load_kind(context["kind"])
    negatives = [fields[kind.negative]] if kind.negative else []
    return truth.truth_score(kind.name, context["topic"], fields[kind.query], fields[kind.positive], negatives)


def compose(kind: str, topic: Topic, slots: Slots, rng: random.Random, given: Sequence[Thought] = ()) -> ScriptedDraft:
    """Write an example of a kind on a topic, whose query has the `given` thoughts first, then others as needed."""
    thoughts = [*given, *(think(topic, rng) for _ in range(MOST_THOUGHTS))][:MOST_THOUGHTS]
    thought = thoughts[0]
    if kind == "classification":
        return _classification(topic, slots, rng, thought)
    if kind == "sts":
        return _sts(topic, slots["unit"], rng, thoughts)
    if kind == "retrieval":
        return _retrieval(topic, slots, rng, thought)
    if slots.get("min_words"):
        return _long_match(topic, slots, rng, thoughts)
    return replace(_sts(topic, rng.choice(("phrase", "sentence")), rng, thoughts), negative="")


def _classification(topic: Topic, slots: Slots, rng: random.Random, thought: Thought) -> ScriptedDraft:
    """Write a text in query words, which leans to the sibling once where it is long; labels in document words."""
    sibling = rng.choice(world.siblings(topic.path))
    if slots["max_words"]:
        short = [form for form in grammar.STATEMENTS["a"] if len(form.split()) < slots["max_words"]]
        text = say(rng.choice(short), thought, "a")
    else:
        text = _text(topic, "a", rng, _enough(slots), [thought])
    if len(text.split()) > 40:
        text += " " + mix(rng.choice(grammar.STATEMENTS["a"]), thought, think(sibling, rng), "a")
    return ScriptedDraft(text, _label(topic, thought.noun, rng), _label(sibling, rng.choice(sibling.nouns), rng))


def _thoughts(text: str, topic: Topic, rng: random.Random) -> list[Thought]:
    """Parse the thoughts of a text, one a sentence, drawing what a sentence leaves open."""
    read = [[c for c in truth.meant(sentence, topic.path) if c.topic == topic.path] for sentence in text.split(".")]
    return [think(topic, rng, concepts) for concepts in read if concepts]


def _label(topic: Topic, noun: Concept, rng: random.Random) -> str:
    form = rng.choice(("{name}", "{name}", "{wider} {name}", "{noun} and {name}"))
    return form.format(name=topic.name, wider=topic.wider, noun=noun.b)


def _sts(topic: Topic, unit: str, rng: random.Random, thoughts: Sequence[Thought]) -> ScriptedDraft:
    """Write S1 in query words; S2 the same in document words; S3 keeps words of S1 and half of its meaning."""
    forms = grammar.PHRASES if unit == "phrase" else grammar.STATEMENTS
    sibling = rng.choice(world.siblings(topic.path))
    lines = []
    for each in thoughts[: 4 if unit == "passage" else 1]:
        form = rng.choice(forms["a"])
        reworded = rng.choice([other for other in forms["b"] if used(other, each) == used(form, each)])
        lines.append((say(form, each, "a"), say(reworded, each, "b"), mix(form, each, think(sibling, rng), "a")))
    return ScriptedDraft(*(_titled(" ".join(texts), topic) for texts in zip(*lines, strict=True)))


def _retrieval(topic: Topic, slots: Slots, rng: random.Random, thought: Thought) -> ScriptedDraft:
    """Write a query in query words, its answer in document words, and a sibling's text with the query's words."""
    if slots["query_min_words"] is None:
        query = say(rng.choice(grammar.SHORT_QUESTIONS), thought, "a")
    elif slots["query_max_words"]:
        query = say(rng.choice(grammar.QUESTIONS), thought, "a")
    else:
        query = say(rng.choice(grammar.LONG_QUESTIONS), thought, "a")
    positive = _text(topic, "b", rng, _enough(slots), [thought])
    negative = _near_miss(rng.choice(world.siblings(topic.path)), thought, rng, _enough(slots))
    return ScriptedDraft(_titled(query, topic), _titled(positive, topic), negative)


def _long_match(topic: Topic, slots: Slots, rng: random.Random, thoughts: Sequence[Thought]) -> ScriptedDraft:
    """Write the same thoughts twice: in query words, and in document words and another order."""
    query = _text(topic, "a", rng, _enough(slots), thoughts)
    positive = _text(topic, "b", rng, _enough(slots), rng.sample(thoughts, len(thoughts)))
    return ScriptedDraft(_titled(query, topic), _titled(positive, topic), "")


def _near_miss(sibling: Topic, thought: Thought, rng: random.Random, least: int) -> str:
    """Write about a sibling, coming back to the query's own words in every third sentence."""
    forms = rng.sample(grammar.STATEMENTS["b"], len(grammar.STATEMENTS["b"]))
    lines: list[str] = []
    while len(lines) < 2 or len(" ".join(lines).split()) < least:
        form, other = forms[len(lines) % len(forms)], think(sibling, rng)
        lines.append(say(form, other, "b") if len(lines) % 3 else mix(form, thought, other, "b"))
    return " ".join(lines)


def _text(topic: Topic, side: Side, rng: random.Random, least: int, thoughts: Sequence[Thought]) -> str:
    """Say these thoughts, then more on the topic until a text has `least` words."""
    forms = rng.sample(grammar.STATEMENTS[side], len(grammar.STATEMENTS[side]))
    lines: list[str] = []
    while len(" ".join(lines).split()) < least:
        number = len(lines)
        thought = thoughts[number] if number < len(thoughts) else think(topic, rng)
        lines.append(say(forms[number % len(forms)], thought, side))
    return " ".join(lines)


def _enough(slots: Slots) -> int:
    """Return the minimum words of a long text: those wanted, up to what the rules call long enough."""
    return min(slots["min_words"], rules.ENOUGH)


def _titled(text: str, topic: Topic) -> str:
    """Name a topic from outside the world, whose words are too general to tell."""
    return text if topic.path in world.topics() else f"{topic.name}: {text}"


def _as_fields(kind_name: str, draft: ScriptedDraft) -> Fields:
    kind = kinds.load_kind(kind_name)
    fields = {kind.query: draft.query, kind.positive: draft.positive}
    return {**fields, kind.negative: draft.negative} if kind.negative else fields
