"""Retrieval: a user's query, a document that serves it, and one that only seems to (SPEED, short-long)."""

import random

from speed_ray.kinds.kind import Field, Fields, Kind, Shot, Slots
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
# The forms of a query about a passage, and the lengths that each is drawn from, in words.
FORMS = {
    "question": ((5, 9), (8, 14), (12, 20)),
    "keywords": ((2, 3), (3, 5), (4, 7)),
    "claim": ((6, 12), (10, 20)),
    "title": ((3, 6), (5, 10)),
    "situation": ((15, 25), (20, 40)),
    "messy": ((3, 6), (5, 10)),
}


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


def _grounded_slots(rng: random.Random, form: str | None = None) -> Slots:
    """Draw the query's form, where none is given, and its length."""
    form = form or rng.choice(list(FORMS))
    least, most = rng.choice(FORMS[form])
    return {"form": form, "min_words": least, "max_words": most}


def _check_grounded(fields: Fields, slots: Slots) -> tuple[str, str] | None:
    """The query is one that somebody types who has not read the passage, and is no piece of it."""
    text, passage = fields["query"], fields["passage"]
    return rules.about_passage("query", text, passage, slots["min_words"], slots["max_words"])


GROUNDED = Kind(
    name="retrieval",
    brief="Write what a user types into a search who needs the passage below, and does not have it.",
    fields=(Field("query", "what the user types, in the words of somebody who has not read the passage"),),
    query="query",
    positive="passage",
    negative=None,
    passage="passage",
    slots=_grounded_slots,
    forms=tuple(FORMS),
    guidelines=(
        "{% if form == 'question' %}The query is one question, which the passage answers."
        "{% elif form == 'keywords' %}The query is keywords, no sentence: the few terms that find the passage."
        "{% elif form == 'claim' %}The query is one statement of fact, which the passage confirms."
        "{% elif form == 'title' %}The query is a title that would suit the passage, and is not its own."
        "{% elif form == 'situation' %}The query tells in the first person what the user is in the middle of, and what"
        " they need to know from the passage."
        "{% elif form == 'messy' %}The query is typed in haste: lower case, no punctuation, words left out."
        "{% else %}The query is like those of the examples.{% endif %}",
        "The query has {{ min_words }} to {{ max_words }} words.",
        "It asks for what this passage says and few others do, by other words than the passage's where there are any.",
        "It can be read alone: it never speaks of a passage, text or author.",
    ),
    check=_check_grounded,
    shuffled=False,
    shots=(
        Shot(
            "Sourdough rises more slowly than dough made with baker's yeast, because the wild yeasts of a starter"
            " are few and share their food with lactic acid bacteria. A cold kitchen may double the time. Bakers "
            "judge the dough by its volume and by the bubbles at its rim, not by the clock.",
            {
                "question": "Why does bread from a starter take so long to rise?",
                "keywords": "slow sourdough proofing causes",
                "claim": "A low room temperature makes naturally leavened dough ferment for much longer.",
                "title": "Knowing When Naturally Leavened Bread Is Ready",
                "situation": "My kitchen is chilly in winter and my loaf has hardly grown after six hours. How do"
                " I tell whether it is ready for the oven?",
                "messy": "sourdough not rising cold kitchen how long",
            },
            "Baker's yeast is sold fresh in cubes or dried in grains. A cube of 42 grams raises a kilogram of flour,"
            " as do two sachets of dried yeast, which need no dissolving and keep for two years in a dry cupboard.",
        ),
        Shot(
            "Tenants may withhold part of the rent only after the landlord has been told of the defect in writing"
            " and has let a reasonable time pass without repair. What is reasonable depends on the defect: two "
            "days for a heating that fails in January, several weeks for a dripping tap.",
            {
                "question": "When is it legal to pay less rent because of a broken heater?",
                "keywords": "rent reduction unrepaired defects notice",
                "claim": "Renters have to report a fault on paper before they pay the owner less.",
                "title": "Paying Less for a Flat in Disrepair",
                "situation": "The radiators in my flat went cold last week and the owner does not answer my "
                "letter. I want to know whether I can keep back some of what I pay.",
                "messy": "landlord wont fix heating can i pay less",
            },
            "A landlord may raise the rent once in twelve months, and only up to what is paid for similar flats"
            " nearby. Tenants have two months to agree. Who does not agree pays no more until a court has decided.",
        ),
        Shot(
            "A hash index finds a key in constant time, yet cannot answer a range query, because neighbouring "
            "keys lie in unrelated buckets. A B-tree keeps keys in order: a lookup costs a few page reads more, "
            "and a range is read by walking along the leaves.",
            {
                "question": "Which database structure should be used for looking up all values between two limits?",
                "keywords": "b-tree vs hash index ranges",
                "claim": "Ordered structures serve interval searches that hashing cannot.",
                "title": "Choosing Between Ordered and Hashed Indexes",
                "situation": "I have a table of timestamps and my reports ask for everything from last week. I am"
                " not sure what kind of index would make them fast.",
                "messy": "hash index between two dates slow why",
            },
            "An index speeds up reading and slows down writing, since each row that is added must be entered into"
            " every index of its table. Columns that nobody searches by should have none.",
        ),
    ),
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
    grounded=GROUNDED,
)
