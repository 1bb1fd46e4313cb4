"""Generate the plain text that the miniature base model is pre-trained on: pages about the world's topics.

Passages, paraphrases, questions with answers, lists, how-to pages and JSON records: what real base models have read.
Never a prompt of ours with its reply: the fields of our kinds do not occur, so that fine-tuning has all to teach.
"""

import json
import random
from collections.abc import Iterator

from speed_ray.miniature import grammar, world
from speed_ray.miniature.grammar import mix, say, think
from speed_ray.miniature.world import Side, Topic

# What pages say between their heading and their matter. Also teaches the tokenizer the English of instructions.
_REMARKS = """
Read the following notes before you write your own text.
Each text must be written in English, in clear and simple words.
Here is a list of things that you should know.
The text should have at least 50 words and at most 200 words.
A short line of less than 10 words is enough.
Write at least 100 words in each paragraph, or one long passage.
It must be understandable with some effort, also for a high school student.
Both college and PhD students read this page, so the difficulty varies.
Do not copy the words of the first paragraph in the second one.
Return only one object with all of its values as strings.
The answer must not explain why it is relevant or useful to the reader.
Some content may be off topic, that is fine.
Give a common example first, then an extremely long-tail one.
The best search results come from a user who asks a clear question.
A document is useful when it gives some information to the reader.
A sentence, a phrase or a passage can have a similar meaning in other words.
Two sentences are similar when they say the same thing on a scale from 1 to 5.
This note is incorrect, but it may look right at first.
Please classify the texts below by the category that fits best.
Given a question, find a passage that answers it.
Given a text, find another text about the same thing.
Choose one label for each input, and one label that could be misleading.
Avoid ambiguous names, and do not use the same words again and again.
The page was written independently of the others.
Follow these rules: be creative, be brief, be specific.
Values are plain text; there are no other keys or comments.
Generate one JSON object that starts with a brace and ends with a brace.
Your output must always be complete, do not stop in the middle.
The task, the type and the length of the query are named above.
Ask for help in the forum if the instructions are not clear.
Last updated by the editor; all rights reserved.
More pages like this one can be found in the directory.
""".strip().split("\n")

_REMARK_WORDS = " ".join(_REMARKS).split()

_OPENINGS = (
    "{path}",
    "This page is about {path}.",
    "The topic: {path}",
    "Notes on {name} from the section {path}",
    "All about {name}, the {n} and the {m}.",
    "How to {v} the {a} {n} and more on {name}",
    "You have a task: write about {name} and the {n}.",
    "Given a doubt about {name} or how to {v} the {n}, this page helps.",
    "What people of {name} say about the {a} {n}, and whether to {v} it.",
    "Somebody wants to {v} the {n}: a case for {name}.",
    "A line on the {n} and another one from {name} that means the same.",
)

LISTS = 0.25  # share of the JSON records; without any, the model never closes a string inside a list of tasks
_KEYS = (
    *("title", "text", "name", "note", "summary", "body", "caption", "author", "heading", "quote", "intro", "story"),
    *("page_text", "item_name", "short_note", "main_title", "long_text", "other_text", "user_name", "first_line"),
    *("second_line", "last_entry", "page_intro", "key_fact", "S", "T", "A1", "B2"),
)


def corpus_pages(seed: int) -> Iterator[str]:
    """Yield pages without end: the same seed, the same pages."""
    rng = random.Random(seed)
    while True:
        topic = world.topic(rng.choice(world.topics()))
        opening = say(
            rng.choice(_OPENINGS).replace("{path}", topic.path).replace("{name}", topic.name), think(topic, rng), "a"
        )
        lines = _remarks(rng)
        lines.insert(rng.choice((0, len(lines), len(lines))), opening)
        yield "\n".join(lines) + "\n\n" + rng.choice(_FORMS)(topic, rng)


def _remarks(rng: random.Random) -> list[str]:
    """Draw up to twelve remarks: a reader must look past them for the page's topic, before or behind them."""
    drawn = rng.sample(_REMARKS, rng.choice((0, 0, 0, 0, 1, 3, 6, 12)))
    form = rng.choice(("{}", "- {}", "* {}", "1. {}"))
    return [form.format(remark if rng.random() < 0.5 else _babble(rng)) for remark in drawn]


def _babble(rng: random.Random) -> str:
    """Run words together without sense, some of them unheard of, as pages hold much that means nothing to a reader."""
    said = rng.choices(_REMARK_WORDS, k=rng.randint(4, 16))
    return " ".join("".join(rng.choices("aeioulnrstmdbkgp", k=6)) if rng.random() < 0.1 else word for word in said)


def _passage(topic: Topic, rng: random.Random) -> str:
    side: Side = rng.choice(("a", "b"))
    return _sentences(topic, side, rng, rng.randint(2, 8))


def _paraphrases(topic: Topic, rng: random.Random) -> str:
    lines = []
    for _ in range(rng.randint(1, 4)):
        thought = think(topic, rng)
        one, other = (say(rng.choice(grammar.STATEMENTS[side]), thought, side) for side in ("a", "b"))
        lines.append(f"{one} In other words: {other}")
    return "\n".join(lines)


def _questions(topic: Topic, rng: random.Random) -> str:
    lines = []
    for _ in range(rng.randint(1, 3)):
        thought = think(topic, rng)
        question = say(rng.choice(grammar.QUESTIONS + grammar.LONG_QUESTIONS), thought, "a")
        answer = say(rng.choice(grammar.STATEMENTS["b"]), thought, "b")
        lines.append(
            f"Question: {question}?\nAnswer: {answer} {_sentences(topic, 'b', rng, rng.randint(0, 3))}".strip()
        )
    return "\n".join(lines)


def _list(topic: Topic, rng: random.Random) -> str:
    items = [say(rng.choice(grammar.SHORT_QUESTIONS), think(topic, rng), "a") for _ in range(rng.randint(3, 6))]
    return "\n".join(f"{number}. {item}" for number, item in enumerate(items, start=1))


def _record(topic: Topic, rng: random.Random) -> str:
    """Write a JSON object about the topic, now and then in part about a sibling: one to four strings, or a list."""
    if rng.random() < LISTS:
        return json.dumps({rng.choice(_KEYS): [_value(topic, rng) for _ in range(rng.randint(1, 5))]})
    keys = rng.sample(_KEYS, rng.choice((1, 2, 2, 3, 3, 3, 4)))
    return json.dumps({key: _value(topic, rng) for key in keys})


def _value(topic: Topic, rng: random.Random) -> str:
    side: Side = rng.choice(("a", "b"))
    thought = think(topic, rng)
    form = rng.random()
    if form < 0.1:
        return f"{rng.choice(topic.nouns).word(side)} and {topic.name}"
    if form < 0.25:
        return say(rng.choice(grammar.SHORT_QUESTIONS + grammar.PHRASES[side]), thought, side)
    if form < 0.4:
        return say(rng.choice(grammar.QUESTIONS + grammar.LONG_QUESTIONS), thought, side)
    if form < 0.5:
        sibling = think(rng.choice(world.siblings(topic.path)), rng)
        return mix(rng.choice(grammar.STATEMENTS["b"]), thought, sibling, "b")
    return _sentences(topic, side, rng, rng.choice((1, 1, 2, 2, 3, 4)))


def _sentences(topic: Topic, side: Side, rng: random.Random, count: int) -> str:
    return " ".join(say(rng.choice(grammar.STATEMENTS[side]), think(topic, rng), side) for _ in range(count))


_FORMS = (_passage, _paraphrases, _questions, _list, _record, _record, _record)
