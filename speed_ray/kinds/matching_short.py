"""Short matching: a phrase or sentence and the one that belongs to it (SPEED, short-short)."""

import random

from speed_ray.kinds.kind import Field, Fields, Kind, Slots
from speed_ray.text import rules

MOST_WORDS = 40  # a sentence; twice as many words are a paragraph


def _slots(rng: random.Random) -> Slots:
    """Nothing varies from prompt to prompt but the task."""
    return {"max_words": MOST_WORDS}


def _check(fields: Fields, slots: Slots) -> tuple[str, str] | None:
    """Both are short, and neither was made by repeating the other."""
    return (
        rules.distinct(fields)
        or rules.no_schema_words(fields)
        or rules.not_copied(("input", fields["input"]), ("positive_document", fields["positive_document"]))
        or rules.first(rules.length(name, text, None, slots["max_words"]) for name, text in fields.items())
    )


KIND = Kind(
    name="matching_short",
    brief="Write one example for a matching task between short texts: an input and the text that belongs to it.",
    fields=(
        Field("input", "a short text of the task, such as somebody would really write"),
        Field("positive_document", "the short text that the task matches with it"),
    ),
    query="input",
    positive="positive_document",
    negative=None,
    slots=_slots,
    guidelines=(
        "Each of the two is a sentence or a phrase.",
        "The two have few words in common: the match is one of meaning.",
        "Neither explains why they belong together.",
    ),
    check=_check,
    shuffled=False,
    example_tasks=(
        "Match a tool's nickname among craftsmen with its name in the catalogue.",
        "Match a symptom in a patient's words with its medical term.",
        "Match a headline with a rival newspaper's headline on the same event.",
        "Match a riddle with its solution.",
        "Match a saying with its meaning in plain words.",
        "Match a bug report's title with the title of the change that fixed it.",
        "Match a dish's name with how a menu would describe it in one line.",
        "Match a question at a help desk with the same question asked by somebody else.",
        "Match a patent's title with a buyer's description of the thing.",
    ),
    task_rules=(
        "Both sides of each match are a phrase or one sentence, never a document.",
        "Each task says what the two sides are and what makes them belong together.",
        "The match needs understanding: equal words would not find it.",
    ),
)
