"""Long matching: a document and another that belongs to it (SPEED, long-long)."""

import random

from speed_ray.kinds.kind import Field, Fields, Kind, Slots
from speed_ray.text import rules

MIN_WORDS = 300


def _slots(rng: random.Random) -> Slots:
    """Nothing varies from prompt to prompt but the task."""
    return {"min_words": MIN_WORDS}


def _check(fields: Fields, slots: Slots) -> tuple[str, str] | None:
    """Both are long, and neither was made by repeating the other."""
    return (
        rules.distinct(fields)
        or rules.no_schema_words(fields)
        or rules.not_copied(("input", fields["input"]), ("positive_document", fields["positive_document"]))
        or rules.first(rules.length(name, text, slots["min_words"], None) for name, text in fields.items())
    )


KIND = Kind(
    name="matching_long",
    brief="Write one example for a matching task between documents: an input and the document that belongs to it.",
    fields=(
        Field("input", "a document of the task, such as somebody would really write"),
        Field("positive_document", "the document that the task matches with it"),
    ),
    query="input",
    positive="positive_document",
    negative=None,
    slots=_slots,
    guidelines=(
        "Each of the two is a document of at least {{ min_words }} words.",
        "The two have no long run of words in common: the match is one of meaning.",
        "Neither explains why they belong together.",
    ),
    check=_check,
    shuffled=False,
    example_tasks=(
        "Match a newspaper's report with another report on the same event.",
        "Match a job advertisement with the letter of somebody who should get the job.",
        "Match a patient's story with a case report on the same illness.",
        "Match a grant proposal with the final report of the work that it paid for.",
        "Match a court's ruling with an essay that applies the same principle.",
        "Match a travel diary with a guide's chapter on the same journey.",
        "Match a customer's long complaint with the company's account of what went wrong.",
        "Match a sermon with a philosopher's text that makes the same argument.",
        "Match an engineer's failure analysis with one of a like failure in another field.",
    ),
    task_rules=(
        "Both sides of each match are documents of several paragraphs.",
        "Each task says what the two sides are and what makes them belong together.",
        "The match needs understanding: equal words would not find it.",
    ),
)
