"""Generate random replies that follow a JSON schema, for engines without a model.

The texts keep to what a prompt's slots want (lengths, labels that stay out of the text), so that they pass a kind's
checks as a good model's would, and different seeds give no near-duplicates. English only.
"""

import random
from collections.abc import Mapping
from typing import Any

import orjson

_STEMS = (
    "amber apple autumn beach berry birch bridge brook candle cedar cellar chalk cliff cloud clover copper coral corn"
    " cotton creek dairy desert dew dust eagle elm ember fern field flint forest fox frost garden glass goose grain"
    " granite grass gravel grove harbor harvest hay hazel heather hill honey horse ice iron island ivy kettle lake"
    " lamp lantern lark leather lily lime linen maple marsh meadow mill mint moon moss mountain oak oat ocean olive"
    " orchard otter paper pebble pepper pine plum pond poplar rain raven reed ridge river robin root rope rose sail"
    " salt sand shell silver snow spruce stone storm straw summer sun swan thistle thunder timber valley violet"
    " walnut water wheat willow wind winter wolf wool"
)
_ENDINGS = ("", "s", " house", " yard", " keeper", " path", " maker", " work", " side", " field", " trade", " shed")
_VERBS = (
    "Compare Arrange Recognise Explain Order Repair Count Measure Describe Collect Sort Trace Value Choose Plan Check"
    " Predict Record Translate Summarise"
)
_LABELS = {"label": "genuine", "misleading_label": "doubtful"}  # no word of a label stands in a text
_LABELLED = "claim complaint notice opinion promise question refusal report request rumour warning wish"

_JOINTS = ("and the", "of a", "near the", "with its", "for every", "but not the", "is older than the", "gave us the")
_WORDS = [stem + ending for stem in _STEMS.split() for ending in _ENDINGS]
_drawn = random.Random(0)
_CLAUSES = [  # some 20 words each, so that a long text is a few draws
    ("The " + " ".join(f"{_drawn.choice(_WORDS)} {_drawn.choice(_JOINTS)}" for _ in range(4)) + " door.")
    for _ in range(8192)
]
_SHORTEST_CLAUSE = 14  # words
_TYPICAL = 12  # words of a text whose slots ask for nothing else
_MOST = 120  # words; the checks call a text of 100 long, whatever was wanted


def fake_reply(schema: dict[str, Any] | None, rng: random.Random, context: Mapping[str, Any]) -> str:
    """Write a reply that follows `schema`, or plain words without one. The same state of `rng` gives the same text."""
    if schema is None:
        return _text(rng, _TYPICAL)
    return orjson.dumps(_value(schema, "", rng, context)).decode()


def _value(schema: Mapping[str, Any], name: str, rng: random.Random, context: Mapping[str, Any]) -> Any:
    """Generate one value of a schema, of the subset of JSON schema that our stages use."""
    if "enum" in schema:
        return rng.choice(schema["enum"])
    kind = schema.get("type", "string")
    if kind == "object":
        invented = {key: _value(below, key, rng, context) for key, below in schema.get("properties", {}).items()}
        return invented | _two_places(schema, rng) if {"best", "worst"} <= invented.keys() else invented
    if kind == "array":
        count = min(context.get("ask", 3), schema.get("maxItems", 1000))
        return [_value(schema.get("items", {}), name, rng, context) for _ in range(count)]
    if kind in ("integer", "number"):
        return rng.randint(schema.get("minimum", 1), schema.get("maximum", 5))
    if kind == "boolean":
        return rng.random() < 0.5
    return _string(name, rng, context)


def _two_places(schema: Mapping[str, Any], rng: random.Random) -> dict[str, int]:
    """Draw two different candidates for a judge's verdict."""
    best, worst = rng.sample(schema["properties"]["best"]["enum"], 2)
    return {"best": best, "worst": worst}


def _string(name: str, rng: random.Random, context: Mapping[str, Any]) -> str:
    if name == "tasks":
        return f"{rng.choice(_VERBS.split())} what the {_text(rng, 6).lower()} say about {context.get('topic', 'it')}."
    if name in _LABELS:
        return f"{_LABELS[name]} {rng.choice(_LABELLED.split())}"
    return _text(rng, _words_wanted(name, context.get("slots", {})))


def _words_wanted(name: str, slots: Mapping[str, Any]) -> int:
    """Return a text's length in words by the slots `min_words` and `max_words` (of a query, `query_min_words` …)."""
    prefix = "query_" if name == "user_query" else ""
    least, most = slots.get(f"{prefix}min_words"), slots.get(f"{prefix}max_words")
    wanted = max(least or 1, _TYPICAL) if most is None else max(least or 1, min(most - 1, _TYPICAL))
    return min(wanted, _MOST)


def _text(rng: random.Random, words: int) -> str:
    """Generate about this many words: single words for a short text, whole clauses for a long one."""
    if words >= 2 * _SHORTEST_CLAUSE:
        return " ".join(rng.choices(_CLAUSES, k=-(-words // _SHORTEST_CLAUSE)))
    return " ".join(" the ".join(rng.choices(_WORDS, k=words)).split()[:words]).capitalize()
