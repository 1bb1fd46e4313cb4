"""Retrieval: a user's query, a document that serves it, and one that only seems to (SPEED, short-long)."""

import random

from speed_ray.kinds.kind import Field, Fields, Kind, Slots
from speed_ray.text import rules

DOCUMENT_WORDS = (50, 100, 200, 300, 400, 500)
QUERY_TYPES = ("extremely long-tail", "long-tail", "common")
QUERY_TYPE_WEIGHTS = (0.4, 0.5, 0.1)
QUERY_LENGTHS = ((None, 5), (5, 15), (10, None))  # (at least, at most) words; without a least: fewer than
QUERY_LENGTH_WEIGHTS = (0.4, 0.4, 0.2)
CLARITY = ("clear", "understandable with some effort", "ambiguous")
CLARITY_WEIGHTS = (0.6, 0.2, 0.2)
EDUCATION = ("high school", "college", "PhD")
NAMED = 0.5  # share of the prompts that name an education at all


def _slots(rng: random.Random) -> Slots:
    """Draw the documents' length, the query's type, length and clarity and, in half of the prompts, an education."""
    [query_type] = rng.choices(QUERY_TYPES, QUERY_TYPE_WEIGHTS)
    [(least, most)] = rng.choices(QUERY_LENGTHS, QUERY_LENGTH_WEIGHTS)
    [clarity] = rng.choices(CLARITY, CLARITY_WEIGHTS)
    difficulty = rng.choice(EDUCATION) if rng.random() < NAMED else None
    return {
        "min_words": rng.choice(DOCUMENT_WORDS),
        "query_type": query_type,
        "query_min_words": least,
        "query_max_words": most,
        "clarity": clarity,
        "difficulty": difficulty,
    }


def _check(fields: Fields, slots: Slots) -> tuple[str, str] | None:
    """The documents differ, are about as long as wanted, and the right one was not made by repeating the query."""
    query = fields["user_query"]
    documents = ("positive_document", "hard_negative_document")
    return (
        rules.distinct(fields)
        or rules.no_schema_words(fields)
        or rules.not_copied(("user_query", query), ("positive_document", fields["positive_document"]))
        or rules.length("user_query", query, slots["query_min_words"], slots["query_max_words"])
        or rules.first(rules.length(name, fields[name], slots["min_words"], None) for name in documents)
    )


KIND = Kind(
    name="retrieval",
    brief="Write one example for a retrieval task: a search query, a document that serves it and one that does not.",
    fields=(
        Field("user_query", "what a user of the task types into the search"),
        Field("positive_document", "a document that gives this user what the task wants found"),
        Field("hard_negative_document", "a document that looks as if it would help, but helps clearly less"),
    ),
    query="user_query",
    positive="positive_document",
    negative="hard_negative_document",
    slots=_slots,
    guidelines=(
        "`user_query` is {{ query_type }}: "
        "{% if query_type == 'common' %}many people search for it.{% else %}few people ever search for it.{% endif %}",
        "`user_query` has "
        "{% if not query_min_words %}fewer than {{ query_max_words }}"
        "{% elif query_max_words %}{{ query_min_words }} to {{ query_max_words }}"
        "{% else %}at least {{ query_min_words }}{% endif %} words.",
        "What the user wants is {{ clarity }} from `user_query`.",
        "{% if difficulty %}Following the query and the documents takes a {{ difficulty }} education.{% endif %}",
        "Each document has at least {{ min_words }} words.",
        "The documents are written by people who never saw the query: they repeat none of its sentences, and some of"
        " what they say may lead away from it.",
        "`hard_negative_document` holds something useful for the query, but less, or less complete, than"
        " `positive_document`.",
        "No value says why a document fits the query or does not.",
    ),
    check=_check,
    example_tasks=(
        "Given the noises that an old boiler makes, find repair notes that name the cause.",
        "Given a gardener's question about a sick plant, find advice that cures it.",
        "Given a historical claim, find a document that confirms or refutes it.",
        "Given what a traveller may eat, find descriptions of regional dishes that suit.",
        "Given a legal question of a small shop owner, find passages of the rules that settle it.",
        "Given a half-remembered plot, find the review of the film in question.",
        "Given a chess opening, find commentary on games in which it decided the result.",
        "Given an error shown by a device, find the manual's section that gets rid of it.",
        "Given a trend in numbers, find an analyst's explanation of what drove it.",
        "Given a craft technique, find step-by-step accounts of people who used it.",
    ),
    task_rules=(
        "Each task says what the query is and what kind of document is to be found for it.",
        "The tasks want different kinds of query (questions, keywords, claims, situations) and of document.",
        "A document that looks right and is not can be imagined for every task.",
    ),
)
