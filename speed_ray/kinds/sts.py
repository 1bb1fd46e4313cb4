"""Semantic textual similarity: three texts, the second nearer in meaning to the first than the third (SPEED)."""

import random

from speed_ray.kinds.kind import Field, Fields, Kind, Shot, Slots
from speed_ray.text import rules

UNITS = ("sentence", "phrase", "passage")
UNIT_WEIGHTS = (0.9, 0.05, 0.05)
FEWEST_WORDS = {"sentence": 4, "phrase": 2, "passage": 30}  # of a text that deserves the name; half of it passes
SENTENCE_WORDS = ((8, 15), (12, 25), (20, 40))  # of what is written about a passage
NEAR = (4, 4.5, 5)  # S1 and S2, on a scale of 1 to 5
FAR = (2.5, 3, 3.5)  # S1 and S3
EDUCATION = ("elementary school", "high school", "college")
NAMED = 0.5  # share of the prompts that name an education at all


def _slots(rng: random.Random) -> Slots:
    """Draw the unit, both similarities and, in half of the prompts, the education that reading the texts takes."""
    [unit] = rng.choices(UNITS, UNIT_WEIGHTS)
    difficulty = rng.choice(EDUCATION) if rng.random() < NAMED else None
    return {
        "unit": unit,
        "min_words": FEWEST_WORDS[unit],
        "near": rng.choice(NEAR),
        "far": rng.choice(FAR),
        "difficulty": difficulty,
    }


def _check(fields: Fields, slots: Slots) -> tuple[str, str] | None:
    """The three texts differ, and each is long enough for its unit. They may share many words: that is the point."""
    return (
        rules.distinct(fields)
        or rules.no_schema_words(fields)
        or rules.first(rules.length(name, text, slots["min_words"], None) for name, text in fields.items())
    )


def _grounded_slots(rng: random.Random) -> Slots:
    """Draw the sentence's length."""
    least, most = rng.choice(SENTENCE_WORDS)
    return {"min_words": least, "max_words": most}


def _check_grounded(fields: Fields, slots: Slots) -> tuple[str, str] | None:
    """The sentence has words of its own, speaks of no passage, and is about as long as wanted."""
    text, passage = fields["same_meaning"], fields["passage"]
    return rules.about_passage("same_meaning", text, passage, slots["min_words"], slots["max_words"])


GROUNDED = Kind(
    name="sts",
    brief="Write one sentence that means what the passage below means.",
    fields=(Field("same_meaning", "one sentence that says the same as the passage"),),
    query="passage",
    positive="same_meaning",
    negative=None,
    passage="passage",
    slots=_grounded_slots,
    guidelines=(
        "The sentence says what the passage says, all that matters of it and nothing else.",
        "It says it in other words and another order than the passage.",
        "It has {{ min_words }} to {{ max_words }} words.",
        "It can be read alone: it never speaks of a passage, text or author.",
    ),
    check=_check_grounded,
    shuffled=False,
    instruction="Retrieve semantically similar text",
    shares_words=True,
    shots=(
        Shot(
            "The ferry does not sail when the wind is stronger than seven. Tickets for a cancelled crossing are "
            "valid on any later day, and can be paid back at the office in the harbour until the end of the "
            "month.",
            {
                "same_meaning": "In a storm no boat goes, and whoever had booked may travel another time or have the"
                " money returned."
            },
        ),
        Shot(
            "Young trees should be watered rarely and thoroughly. Roots that find moisture only at the surface stay"
            " there, and such a tree suffers in the first dry summer.",
            {
                "same_meaning": "A sapling that gets much water at long intervals roots deeply and stands a drought"
                " better."
            },
        ),
    ),
)


KIND = Kind(
    name="sts",
    brief="Write three texts whose meanings are graded: the second is close to the first, the third further away.",
    fields=(
        Field("S1", "a {{ unit }} on the topic"),
        Field("S2", "a {{ unit }} whose similarity in meaning to S1 is {{ near }}"),
        Field("S3", "a {{ unit }} whose similarity in meaning to S1 is {{ far }}"),
    ),
    query="S1",
    positive="S2",
    negative="S3",
    slots=_slots,
    guidelines=(
        "Similarity is on a scale from 1 (nothing in common) to 5 (the same meaning).",
        "The three texts share some of their words, S3 too, so that counting words cannot tell S2 from S3.",
        "S2 says it in other words and another order than S1; it is no copy with one word exchanged.",
        "{% if difficulty %}Reading the texts takes {{ difficulty }} education.{% endif %}",
        "Each text can be read alone and explains nothing about the others.",
    ),
    check=_check,
    shuffled=False,
    instruction="Retrieve semantically similar text",
    shares_words=True,
    grounded=GROUNDED,
)
