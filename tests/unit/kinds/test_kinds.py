"""The kinds: what they draw follows the paper, what they refuse is what they say, and adding one is one file."""

import collections
import json
import random
import sys
from pathlib import Path

import pytest

from speed_ray import kinds
from speed_ray.errors import UserError
from speed_ray.kinds.kind import Kind
from speed_ray.prompts import parse
from speed_ray.prompts.render import Prompts
from speed_ray.recipes import load_recipe
from speed_ray.records import Rejected
from speed_ray.stages.synthesize import Synthesize
from speed_ray.text import rules

FIVE = ["classification", "matching_long", "matching_short", "retrieval", "sts"]
LIMERICK = '''"""Limericks: a topic's limerick and a sober sentence on the same thing."""

from speed_ray.kinds.kind import Field, Kind

KIND = Kind(
    name="limerick",
    brief="Write a limerick and a sober sentence.",
    fields=(Field("limerick", "five lines in {{ metre }}"), Field("sentence", "the same, soberly")),
    query="limerick",
    positive="sentence",
    negative=None,
    slots=lambda rng: {"metre": rng.choice(["anapaests"])},
    guidelines=("Rhyme.",),
    check=lambda fields, slots: None if len(fields["limerick"].split("\\n")) == 5 else ("not_five_lines", ""),
    example_tasks=("Match a limerick with its moral.",),
)
'''


def words(count: int, seed: int = 0) -> str:
    rng = random.Random(seed)
    return " ".join(
        rng.choice(["lamp", "river", "table", "seven", "green", "under", "walk", "paper"]) for _ in range(count)
    )


def drawn(name: str, slot: str, rows: int = 20_000) -> dict[object, float]:
    """Share of each value of a slot, over the rows of a seed."""
    kind, rng = kinds.load_kind(name), random.Random(1)
    counts = collections.Counter(kind.slots(rng)[slot] for _ in range(rows))
    return {value: count / rows for value, count in counts.items()}


def reason(kind: Kind, fields: dict[str, str], **slots: object) -> str | None:
    broken = kind.check(fields, kind.slots(random.Random(0)) | slots)
    return broken and broken[0]


def test_the_five_kinds_are_there() -> None:
    assert [name for name in kinds.kind_names() if name in FIVE] == FIVE


@pytest.mark.parametrize("name", FIVE)
def test_a_kind_is_whole(name: str) -> None:
    kind = kinds.load_kind(name)
    named = [field.name for field in kind.fields]
    assert kind.name == name
    assert list(kind.schema["properties"]) == named == kind.schema["required"]
    assert [kind.query, kind.positive, *([kind.negative] if kind.negative else [])] == named
    assert (kind.instruction is None) == (len(kind.example_tasks) >= 8)
    assert len(set(kind.example_tasks)) == len(kind.example_tasks)


@pytest.mark.parametrize("name", FIVE)
def test_slots_are_a_function_of_the_generator(name: str) -> None:
    kind = kinds.load_kind(name)
    assert kind.slots(random.Random(5)) == kind.slots(random.Random(5))
    assert json.loads(json.dumps(kind.slots(random.Random(5)))) == kind.slots(random.Random(5))


@pytest.mark.parametrize(
    ("name", "slot", "shares"),
    [  # the table of SPEED's slots
        ("retrieval", "min_words", dict.fromkeys([50, 100, 200, 300, 400, 500], 1 / 6)),
        ("retrieval", "query_type", {"extremely long-tail": 0.4, "long-tail": 0.5, "common": 0.1}),
        ("retrieval", "query_min_words", {None: 0.4, 5: 0.4, 10: 0.2}),
        ("retrieval", "query_max_words", {5: 0.4, 15: 0.4, None: 0.2}),
        ("retrieval", "clarity", {"clear": 0.6, "understandable with some effort": 0.2, "ambiguous": 0.2}),
        ("retrieval", "difficulty", {None: 1 / 2, "high school": 1 / 6, "college": 1 / 6, "PhD": 1 / 6}),
        ("classification", "clarity", {"clear": 0.6, "understandable with some effort": 0.2, "ambiguous": 0.2}),
        ("classification", "difficulty", {None: 1 / 2, "high school": 1 / 6, "college": 1 / 6, "PhD": 1 / 6}),
        ("classification", "min_words", {None: 0.1, 10: 0.3, 50: 0.2, 100: 0.2, 200: 0.2}),
        ("classification", "max_words", {10: 0.1, None: 0.9}),
        ("sts", "unit", {"sentence": 0.9, "phrase": 0.05, "passage": 0.05}),
        ("sts", "near", dict.fromkeys([4, 4.5, 5], 1 / 3)),
        ("sts", "far", dict.fromkeys([2.5, 3, 3.5], 1 / 3)),
        ("sts", "difficulty", {None: 1 / 2, "elementary school": 1 / 6, "high school": 1 / 6, "college": 1 / 6}),
        ("matching_long", "min_words", {300: 1.0}),
    ],
)
def test_slots_have_the_papers_weights(name: str, slot: str, shares: dict[object, float]) -> None:
    assert drawn(name, slot) == pytest.approx(shares, abs=0.015)


def test_adding_a_kind_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "limerick.py").write_text(LIMERICK)
    monkeypatch.setattr(kinds, "__path__", [*kinds.__path__, str(tmp_path)])
    monkeypatch.setattr(sys, "modules", sys.modules.copy())
    kind = kinds.load_kind("limerick")
    assert load_recipe("miniature", ["mix={limerick: 1}"]).mix == {"limerick": 1}

    rng = random.Random(0)
    slots, prompts = kind.slots(rng), Prompts()
    assert "five lines in anapaests" in prompts.synthesize(kind, slots, "Bees", "Hum.", "English", rng)[0]["content"]
    assert "Match a limerick" in prompts.brainstorm(kind, "Bees", 5, "English", rng)[0]["content"]

    five = {"limerick": "a\nb\nc\nd\ne", "sentence": "Bees hum."}
    assert parse.parse_example(json.dumps(five), kind, slots, "English") == five
    with pytest.raises(Rejected, match="not_five_lines"):
        parse.parse_example(json.dumps(five | {"limerick": "a"}), kind, slots, "English")


def test_a_kind_that_no_run_asks_for_changes_no_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_job
) -> None:
    job = make_job().begin()
    before = Synthesize(job.recipe).plan(job.run)
    assert {f"kinds.{name}" for name in job.recipe.mix} <= set(before.identity["code"])
    (tmp_path / "limerick.py").write_text(LIMERICK)
    monkeypatch.setattr(kinds, "__path__", [*kinds.__path__, str(tmp_path)])
    monkeypatch.setattr(sys, "modules", sys.modules.copy())
    assert "limerick" in kinds.kind_names()
    assert Synthesize(job.recipe).plan(job.run) == before


def test_a_kind_with_a_field_that_the_embedder_never_sees_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sonnet.py").write_text(LIMERICK.replace('Field("sentence"', 'Field("mood", "any"), Field("sentence"'))
    monkeypatch.setattr(kinds, "__path__", [*kinds.__path__, str(tmp_path)])
    monkeypatch.setattr(sys, "modules", sys.modules.copy())
    with pytest.raises(UserError, match=r"kinds/sonnet.py: the fields are limerick, mood, sentence, but query"):
        kinds.load_kind("sonnet")


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({}, None),
        ({"label": "River"}, "label_in_text"),
        ({"misleading_label": "green table"}, "label_in_text"),
        ({"label": "rive"}, None),
        ({"label": "C++", "misleading_label": "C#"}, None),
        ({"label": " Late\tpayment ", "misleading_label": "late payment"}, "same_text"),
        ({"label": "label: late"}, "schema_words"),
        ({"input_text": "the input_text is here"}, "schema_words"),
        ({"input_text": "river table green"}, "too_short"),
    ],
)
def test_classification_refuses(changed: dict[str, str], why: str | None) -> None:
    text = "river, green table: walk under seven lamps"
    fields = {"input_text": text, "label": "late payment", "misleading_label": "lost card"} | changed
    assert reason(kinds.load_kind("classification"), fields, min_words=10, max_words=None) == why


def test_a_label_is_found_in_a_script_without_spaces() -> None:
    assert rules.not_naming(("input_text", "我想申请退款因为坏了"), {"label": "退款"})
    assert not rules.not_naming(("input_text", "我想申请换货因为坏了"), {"label": "退款"})


@pytest.mark.parametrize(
    ("query", "positive", "why"),
    [
        ("why lamps hum at night", words(60), None),
        ("why lamps hum at night", words(30) + " why lamps hum at night " + words(30), "copied_query"),
        ("why lamps hum at night", words(30) + ", Why lamps\nhum at NIGHT? " + words(30), "copied_query"),
        (
            "why do the old street lamps hum so loudly at night",
            words(30) + " Why do the old street lamps hum so loudly at dusk " + words(30),
            "copied_query",
        ),
        ("lamps hum", words(30) + " lamps hum " + words(30), None),
        ("why lamps hum at night", words(20), "too_short"),
        ("why lamps hum at night", words(26), None),
        (words(40, seed=3), words(60), "too_long"),
        ("user_query: why lamps hum", words(60), "schema_words"),
    ],
)
def test_retrieval_refuses(query: str, positive: str, why: str | None) -> None:
    fields = {"user_query": query, "positive_document": positive, "hard_negative_document": words(60, seed=2)}
    slots = {"min_words": 50, "query_min_words": None, "query_max_words": 15}
    assert reason(kinds.load_kind("retrieval"), fields, **slots) == why


def test_a_document_is_long_enough_before_the_reply_would_be_cut() -> None:
    """Two documents of half of 500 words and a query would fill a reply of 800 tokens."""
    assert rules.length("x", words(100), 500, None) is None
    assert rules.length("x", words(99), 500, None)


def test_sts_lets_texts_share_words_but_not_all() -> None:
    sts = kinds.load_kind("sts")
    fields = {"S1": "the lamp hums at night", "S2": "at night the lamp hums", "S3": "the lamp hums at noon"}
    assert reason(sts, fields, min_words=4) is None
    assert reason(sts, fields | {"S3": "The lamp hums  at night"}, min_words=4) == "same_text"
    assert reason(sts, fields | {"S2": "lamp"}, min_words=4) == "too_short"
    assert reason(sts, fields | {"S2": "and S3: the lamp"}, min_words=4) == "schema_words"
    assert reason(sts, fields | {"S2": "the Audi S1 hums at night"}, min_words=4) is None


def test_matching_keeps_its_lengths() -> None:
    short, long = kinds.load_kind("matching_short"), kinds.load_kind("matching_long")
    assert reason(short, {"input": "a lamp", "positive_document": "a light"}) is None
    assert reason(short, {"input": "a lamp", "positive_document": words(100)}) == "too_long"
    assert reason(short, {"input": "Input: a lamp", "positive_document": "a light"}) is None
    assert reason(short, {"input": '"input": a lamp', "positive_document": "a light"}) == "schema_words"
    assert reason(long, {"input": words(300), "positive_document": words(300, seed=1)}) is None
    assert reason(long, {"input": words(300), "positive_document": words(90, seed=1)}) == "too_short"
    assert reason(long, {"input": words(300), "positive_document": "So: " + words(300)}) == "copied_query"
