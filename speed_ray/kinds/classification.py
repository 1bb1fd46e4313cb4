"""Classification: a text, its label, and a label of the same task that misleads (SPEED, long-short)."""

import random

from speed_ray.kinds.kind import Field, Fields, Kind, Shot, Slots
from speed_ray.text import rules

LENGTHS = ((None, 10), (10, None), (50, None), (100, None), (200, None))  # (at least, fewer than) words
LENGTH_WEIGHTS = (0.1, 0.3, 0.2, 0.2, 0.2)
LABEL_WORDS = 6  # of a topic, at most
CLARITY = ("clear", "understandable with some effort", "ambiguous")
CLARITY_WEIGHTS = (0.6, 0.2, 0.2)
EDUCATION = ("high school", "college", "PhD")
NAMED = 0.5  # share of the prompts that name an education at all


def _slots(rng: random.Random) -> Slots:
    """Draw the text's length, how clear it is and, in half of the prompts, the education that reading it takes."""
    [(least, most)] = rng.choices(LENGTHS, LENGTH_WEIGHTS)
    [clarity] = rng.choices(CLARITY, CLARITY_WEIGHTS)
    difficulty = rng.choice(EDUCATION) if rng.random() < NAMED else None
    return {"min_words": least, "max_words": most, "clarity": clarity, "difficulty": difficulty}


def _check(fields: Fields, slots: Slots) -> tuple[str, str] | None:
    """Labels differ and stay out of the text; the text is about as long as wanted."""
    text = fields["input_text"]
    labels = {name: fields[name] for name in ("label", "misleading_label")}
    return (
        rules.distinct(fields)
        or rules.no_schema_words(fields)
        or rules.not_naming(("input_text", text), labels)
        or rules.length("input_text", text, slots["min_words"], slots["max_words"])
    )


def _check_grounded(fields: Fields, slots: Slots) -> tuple[str, str] | None:
    """Labels differ, are short and stay out of the passage."""
    labels = {name: fields[name] for name in ("label", "misleading_label")}
    return (
        rules.distinct(labels)
        or rules.no_schema_words(labels)
        or rules.not_naming(("input_text", fields["input_text"]), labels)
        or rules.first(rules.length(name, label, None, slots["max_words"]) for name, label in labels.items())
    )


GROUNDED = Kind(
    name="classification",
    brief="Name the topic of the passage below, and a topic that a hasty reader might take for it.",
    fields=(
        Field("label", "the passage's topic in a few words"),
        Field("misleading_label", "another topic, near to it, which the passage is not about"),
    ),
    query="input_text",
    positive="label",
    negative="misleading_label",
    passage="input_text",
    slots=lambda rng: {"max_words": LABEL_WORDS},
    guidelines=(
        "The topic is one that other documents could have as well.",
        "The words of `label` and of `misleading_label` do not appear in the passage.",
        "A label has at most {{ max_words }} words and stands alone: no value explains why it was given.",
    ),
    check=_check_grounded,
    shuffled=False,
    instruction="Identify the topic of the text",
    positive_is_label=True,
    shots=(
        Shot(
            "The ferry does not sail when the wind is stronger than seven. Tickets for a cancelled crossing are "
            "valid on any later day, and can be paid back at the office in the harbour until the end of the "
            "month.",
            {"label": "refunds for passengers", "misleading_label": "weather at sea"},
        ),
    ),
)


KIND = Kind(
    name="classification",
    brief="Write one example for a text classification task: a text, its right label and a tempting wrong one.",
    fields=(
        Field("input_text", "a text as somebody would really write it, to be classified by the task"),
        Field("label", "the one label that is right for the text"),
        Field("misleading_label", "a label of the same task that a hasty reader might give, but that is wrong"),
    ),
    query="input_text",
    positive="label",
    negative="misleading_label",
    slots=_slots,
    guidelines=(
        "`input_text` has {% if max_words %}fewer than {{ max_words }}{% else %}at least {{ min_words }}{% endif %}"
        " words, and its wording is its own, not that of the task.",
        "What `input_text` means is {{ clarity }}.",
        "{% if difficulty %}Reading `input_text` takes a {{ difficulty }} education.{% endif %}",
        "The words of `label` and of `misleading_label` do not appear in `input_text`.",
        "`misleading_label` belongs to the same set of labels and is close to the text, yet clearly less fitting"
        " than `label`.",
        "A label is short and stands alone: no value explains why it was given.",
    ),
    check=_check,
    example_tasks=(
        "Decide which office of a city hall should handle a resident's complaint.",
        "Tell at which step of moving house the writer of a message is.",
        "Work out what a museum visitor hopes to get from an audio guide, from their comment card.",
        "Name the kind of fault that a cyclist describes to a repair shop.",
        "Judge which of a recipe's steps a home cook got wrong, from the cook's account.",
        "Sort notes from a ship's log by the kind of event that they record.",
        "Say which stage of mourning a diary entry expresses.",
        "Recognise which role in a theatre company wrote a rehearsal note.",
        "Tell from a farmer's report which pest is damaging the crop.",
        "Decide which contract clause a tenant's question is about.",
    ),
    task_rules=(
        "Each task says what kind of text is classified and what its classes tell apart.",
        "Stay away from the well-worn tasks and anything near them: sentiment, subject or study field, genre,"
        " main topic, spam, urgency and language identification.",
        "The classes can be told from the text alone, and their names need not appear in it.",
        "The tasks differ from each other in who writes the text, why, and what is decided.",
    ),
    positive_is_label=True,
    grounded=GROUNDED,
)
