"""What we hear: replies are read without changing a word, or rejected for a reason that can be counted.

`SPEED_RAY_WRITE_GOLDEN=1 pytest tests/unit/prompts/test_parse.py` rewrites tests/golden/replies: for each
`<name>.txt`, a raw reply, `<name>.json` says the kind ("tasks" for a brainstormed list), the slots where they matter,
and what came of it. Review the difference before committing it.
"""

import contextlib
import json
import os
import random
import string
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from speed_ray import kinds
from speed_ray.kinds.kind import Field, Kind
from speed_ray.prompts import parse
from speed_ray.prompts.render import Prompts
from speed_ray.records import Rejected
from tests.helpers.paths import GOLDEN

unhurried = settings(deadline=None, max_examples=300)  # a slow machine is no wrong answer
REPLIES_FOLDER = GOLDEN / "replies"

PLAIN = Kind(  # a kind that accepts any text, so that only the reading is tested
    name="plain",
    brief="",
    fields=(Field("user_query", "", any_language=True), Field("S2", "", any_language=True)),
    query="user_query",
    positive="S2",
    negative=None,
    slots=lambda rng: {},
    guidelines=(),
    check=lambda fields, slots: None,
)


BRAINSTORM = Prompts().brainstorm(kinds.load_kind("matching_short"), "Tools", 5, "English", random.Random(0))


def read(text: str) -> dict[str, str]:
    return parse.unchecked_fields(text, PLAIN)


def reason(text: str) -> str:
    with pytest.raises(Rejected) as rejected:
        read(text)
    return rejected.value.reason


def outcome(text: str, said: dict[str, Any]) -> dict[str, Any]:
    try:
        if said["kind"] == "tasks":
            return {"tasks": parse.parse_tasks(text, 5, BRAINSTORM)}
        if "passage" in said:
            return {"fields": written_about(text, said)}
        kind = kinds.load_kind(said["kind"])
        slots = kind.slots(random.Random(0)) | said.get("slots", {})
        return {"fields": parse.parse_example(text, kind, slots, said.get("language", "English"))}
    except Rejected as rejected:
        return {"reason": rejected.reason, "detail": rejected.detail}


def written_about(text: str, said: dict[str, Any]) -> dict[str, str]:
    kind = kinds.load_grounded(said["kind"])
    slots = kind.slots(random.Random(0)) | said["slots"]
    return parse.parse_grounded(text, kind, slots, "English", said["passage"], said["one_line"])


@pytest.mark.parametrize("name", sorted(path.stem for path in REPLIES_FOLDER.glob("*.txt")))
def test_golden(name: str) -> None:
    text = (REPLIES_FOLDER / f"{name}.txt").read_bytes().decode()
    expected = json.loads((REPLIES_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    asked = {key: expected[key] for key in ("kind", "slots", "language", "passage", "one_line") if key in expected}
    got = asked | outcome(text, asked)
    if os.environ.get("SPEED_RAY_WRITE_GOLDEN"):
        (REPLIES_FOLDER / f"{name}.json").write_text(
            json.dumps(got, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    else:
        assert got == expected


# Words that have broken other parsers: quotes, braces, commas before braces, thoughts, fences, apostrophes, escapes.
TRAPS = [
    "task's",
    "'",
    '"',
    "\\",
    "{",
    "}",
    ",}",
    ", ]",
    "{'a': 'b',}",
    '{"S2": 1}',
    "```",
    "</think>",
    "<think>",
    "[/THINK]",
    "<|channel|>final",
    "\n<thinking>",
    "{...}",
    "\n",
    "\t",
]
CONTENT = st.lists(st.sampled_from(TRAPS) | st.text(st.characters(exclude_categories=["Cs", "Cc"])), min_size=1).map(
    " ".join
)
FIELDS = st.fixed_dictionaries({"user_query": CONTENT, "S2": CONTENT}).map(
    lambda fields: {name: text.strip() for name, text in fields.items()}
)
BEFORE = st.sampled_from(
    [
        "",
        "\ufeff",
        "Sure! Here it is:\n",
        "```json\n",
        "```\n",
        "<think>a {\"b\": 1} and {'c'}</think>\n",
        '[THINK]first {"user_query": "x", "S2": "y"}[/THINK]',
        'or {"user_query": "x", "S2": "y" no</think>So:\n',
        'of the form {"user_query": ..., "S2": ...}:\n',
        "{ok} ",
        "{{",
    ]
)
AFTER = st.sampled_from(["", "\n```", "\nHope that's what you wanted! {smile}", '\n\n{"user_query": "other"}', "}}"])


@unhurried
@given(FIELDS, BEFORE, AFTER, st.booleans(), st.sampled_from([None, 2]))
@example(
    {"user_query": "task's", "S2": "</think>"},
    'or {"user_query": "x", "S2": "y" no</think>So:\n',
    '\n\n{"user_query": "other"}',
    False,
    None,
)
def test_no_word_is_changed(
    fields: dict[str, str], before: str, after: str, ascii_only: bool, indent: int | None
) -> None:
    assume(all(fields.values()))
    assert read(before + json.dumps(fields, ensure_ascii=ascii_only, indent=indent) + after) == fields


@unhurried
@given(FIELDS, BEFORE)
@example({"user_query": "task's", "S2": "</think> {'a': 'b',}"}, "Sure! Here it is:\n")
def test_no_word_is_changed_by_leniency(fields: dict[str, str], before: str) -> None:
    """A trailing comma makes JSON's own grammar refuse, so this goes the other way through the parser."""
    assume(all(fields.values()))
    dumped = json.dumps(fields, ensure_ascii=False)
    assert read(before + dumped[:-1] + ", }") == fields


@unhurried
@given(FIELDS)
@example({"user_query": "task's", "S2": '</think> {"S2": 1}'})
def test_python_quotes_change_no_word(fields: dict[str, str]) -> None:
    assume(all(fields.values()))
    try:
        assert read(repr(fields)) == fields
    except Rejected as rejected:  # repr writes \x07 and \U000e0001, which JSON has not: refused, not guessed
        assert rejected.reason == "not_json" and ("\\x" in repr(fields) or "\\U" in repr(fields))


@unhurried
@given(FIELDS, st.data())
def test_a_cut_reply_is_never_completed(fields: dict[str, str], data: st.DataObject) -> None:
    assume(all(fields.values()))
    dumped = json.dumps(fields)
    assert reason(dumped[: data.draw(st.integers(2, len(dumped) - 1))]) == "truncated"


@unhurried
@given(st.text(st.sampled_from("{}[]\"'\\,: \nabc" + string.digits)))
def test_nothing_but_rejected_is_raised(text: str) -> None:
    with contextlib.suppress(Rejected):
        read(text)
    with contextlib.suppress(Rejected):
        parse.parse_tasks(text, 5, BRAINSTORM)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not_json"),
        ("I cannot help with that.", "not_json"),
        ('["user_query", "S2"]', "not_json"),
        ('{"user_query": "a "quoted" word", "S2": "b"}', "not_json"),
        ("{'user_query': 'it's here', 'S2': 'b'}", "not_json"),
        ('{"user_query": __import__("os"), "S2": "b"}', "not_json"),
        ('{"a":' * 100_000, "not_json"),
        ('<think>so {"user_query": "a", "S2": "b"}', "truncated"),
        ('{"user_query": "a", "S2": "b"', "truncated"),
        ('{"user_query": "a"}', "missing_field"),
        ('{"user_query": "a", "S2": "b", "why": "c"}', "extra_field"),
        ('{"user_query": "a", "S2": 7}', "not_a_string"),
        ('{"user_query": "a", "S2": ' + "7" * 5000 + "}", "not_a_string"),
        ('{"user_query": "a", "S2": true}', "not_a_string"),
        ('{"user_query": "a", "S2": NaN}', "not_a_string"),
        ('{"user_query": "a", "S2": {"text": "b"}}', "not_a_string"),
        ('{"user_query": "a", "S2": " \\n "}', "blank_field"),
        ('{"user_query": "a", "S2": "b", "S2": "c"}', "duplicate_field"),
        ('{"user_query": "a", "S2": "b\\u0000c"}', "control_character"),
        ('{"user_query": "a", "S2": "b\\u007fc"}', "control_character"),
        ('{"user_query": "a", "S2": "\\ud83d"}', "lone_surrogate"),
    ],
)
def test_reasons(text: str, why: str) -> None:
    assert reason(text) == why


def test_an_example_quoted_inside_a_broken_one_is_not_taken_for_it() -> None:
    inner = "{'user_query': 'x', 'S2': 'y'}"
    assert reason('{"user_query": "a "quoted" word", "S2": "' + inner + '"}') == "not_json"


def test_line_breaks_inside_strings_are_read_as_they_are() -> None:
    assert read('{"user_query": "a\nb", "S2": "c\td"}') == {"user_query": "a\nb", "S2": "c\td"}


def test_windows_line_breaks_become_line_breaks() -> None:
    assert read('{"user_query": "a\\r\\nb", "S2": "c\r\nd\\re"}') == {"user_query": "a\nb", "S2": "c\nd\ne"}


STS = kinds.load_kind("sts")
SENTENCES = {
    "S1": "The ferry leaves the island before sunrise.",
    "S2": "Before the sun is up, the ferry sets off.",
    "S3": "The ferry to the island was cancelled.",
}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("...", "no_letters"),
        ("…", "no_letters"),
        ("-", "no_letters"),
        ("\u200b", "no_letters"),
        ("\ufffd\ufffd", "no_letters"),
        ("The ferry l\ufffdaves the island", "lost_character"),
        ("S1", "placeholder"),
        ("<s1>", "placeholder"),
        ("a sentence on the topic", "placeholder"),
        ("A passage on the topic.", "placeholder"),
        ("a sentence whose similarity in meaning to S1 is 4.5", "placeholder"),
        ("An essay on the topic of the ferry", None),
        ("42", "too_short"),
    ],
)
def test_a_text_is_one_of_its_own(text: str, why: str | None) -> None:
    for name in SENTENCES:
        fields = SENTENCES | {name: text}
        if why is None:
            assert parse.parse_example(json.dumps(fields), STS, {"min_words": 4}, "English") == fields
        else:
            with pytest.raises(Rejected) as rejected:
                parse.parse_example(json.dumps(fields), STS, {"min_words": 4}, "English")
            assert rejected.value.reason == why


@pytest.mark.parametrize("name", kinds.kind_names())
def test_what_a_prompt_shows_in_the_place_of_a_text_is_none(name: str) -> None:
    prompts = Prompts()
    kind = kinds.load_kind(name)
    for seed in range(40):
        rng = random.Random(seed)
        slots = kind.slots(rng)
        prompt = prompts.synthesize(kind, slots, "Bees", "Hum.", "English", rng)[0]["content"]
        for field in kind.fields:
            [shown] = [
                line.split(": ", 1)[1] for line in prompt.splitlines() if line.startswith(f'- "{field.name}": ')
            ]
            assert kind.is_placeholder(shown), shown


LABELLED = {"input_text": "He paid and left without a word.", "label": "N/A", "misleading_label": "None"}


@pytest.mark.parametrize(
    "text", ["[Insert query here]", "<a short text>", "(unchanged)", "[rest unchanged]", "{{query}}", "Your text here"]
)
def test_what_asks_for_a_text_is_none_in_any_field(text: str) -> None:
    for kind, fields in (("sts", SENTENCES), ("classification", LABELLED)):
        for name in fields:
            broken = kinds.load_kind(kind).check_written(fields | {name: text})
            assert broken and broken[0] == "placeholder", name


@pytest.mark.parametrize("text", ["N/A", "ｎ／ａ", "None.", "Unchanged", "Same as above", "No changes needed.", "TBD"])
def test_what_says_that_there_is_no_text_may_be_a_label_alone(text: str) -> None:
    classification = kinds.load_kind("classification")
    for name in SENTENCES:
        broken = STS.check_written(SENTENCES | {name: text})
        assert broken and broken[0] == "placeholder"
    assert classification.check_written(LABELLED | {"label": text}) is None
    assert classification.check_written(LABELLED | {"input_text": text}) is not None


@pytest.mark.parametrize("answer", ["string", "B", "7", "[laughs]", "<table>", "Nothing", "Your journey starts here"])
def test_a_short_answer_is_a_text(answer: str) -> None:
    fields = {"input": "Which of them is meant?", "positive_document": answer}
    assert kinds.load_kind("matching_short").check_written(fields) is None


def test_a_surrogate_pair_is_one_character() -> None:
    assert read('{"user_query": "a", "S2": "\\ud83d\\ude00"}')["S2"] == "😀"


def test_the_answer_is_read_and_not_the_thought() -> None:
    thought = '{"user_query": "draft", "S2": "draft"}'
    answer = '{"user_query": "a", "S2": "b"}'
    for text in (f"<think>{thought}</think>Here: {answer}", f"{'x' + thought}</think>\n\n```json\n{answer}\n```"):
        assert read(text)["S2"] == "b"


def test_many_hostile_quotes_end() -> None:
    assert reason('{"' + '\\"' * 200_000) == "truncated"
    assert reason("{'" + "\\'" * 200_000) == "not_json"
    assert reason("{'a" * 100_000) == "not_json"


def test_the_language_drawn_is_the_language_written() -> None:
    sts = kinds.load_kind("sts")
    fields = {
        "S1": "Der Zug nach Hamburg fährt heute wegen eines Unwetters erst zwei Stunden später ab.",
        "S2": "Wegen eines Unwetters verlässt der Hamburger Zug den Bahnhof heute mit zwei Stunden Verspätung.",
        "S3": "Der Zug nach München ist heute pünktlich, obwohl draußen ein heftiges Unwetter tobt.",
    }
    slots = sts.slots(random.Random(0))
    text = json.dumps(fields)
    assert parse.parse_example(text, sts, slots, "German") == fields
    assert parse.parse_example(text, sts, slots, "Klingon") == fields
    with pytest.raises(Rejected, match="wrong_language"):
        parse.parse_example(text, sts, slots, "English")


def test_tasks() -> None:
    listed = [
        "1. Find  bolts.",
        "2) find bolts.",
        "- 3D models of bolts, found.",
        " ",
        "x" * 401,
        7,
        None,
        "a\nb",
        "\ud800",
    ]
    assert parse.parse_tasks(json.dumps({"tasks": listed}), 5, BRAINSTORM) == [
        "Find  bolts.",
        "3D models of bolts, found.",
    ]


@pytest.mark.parametrize(
    "item",
    [
        "first task",
        "Second Task.",
        "a",
        "...",
        "- …",
        "task 1",
        "string",
        "find \ufffd bolts",
        "Match a riddle with its solution.",
        "match a riddle  with its solution",
        "Each task says what the two sides are and what makes them belong together.",
    ],
)
def test_what_the_prompt_says_itself_is_no_task(item: str) -> None:
    listed = json.dumps({"tasks": [item, "Find bolts by their thread."]})
    assert parse.parse_tasks(listed, 5, BRAINSTORM) == ["Find bolts by their thread."]


@pytest.mark.parametrize("item", ["[Add more tasks here]", "<task description>", "[Insert query here]"])
def test_a_stand_in_is_no_task(item: str) -> None:
    assert parse.parse_tasks(json.dumps({"tasks": [item, "Find bolts."]}), 5, BRAINSTORM) == ["Find bolts."]


@pytest.mark.parametrize(
    "number",
    [
        "Task 1: ",
        "**Task 2:** ",
        "1. Task 3 - ",
        "- **Task 4**: ",
        "(5) ",
        "#6: ",
        "7: ",
        "**8.** ",
        "Tâche 9 : ",
        "任务10：",
    ],
)
def test_the_number_of_a_task_is_no_part_of_it(number: str) -> None:
    assert parse.parse_tasks(json.dumps({"tasks": [f"{number}Find bolts."]}), 5, BRAINSTORM) == ["Find bolts."]


@pytest.mark.parametrize(
    "task", ["3D models: find one.", "Task forces: find one.", "2024 laws: find one.", "#MeToo posts."]
)
def test_a_number_that_counts_nothing_stays(task: str) -> None:
    assert parse.parse_tasks(json.dumps({"tasks": [task]}), 5, BRAINSTORM) == [task]


def test_tasks_are_at_most_as_many_as_asked() -> None:
    assert parse.parse_tasks('{"tasks": ["find a", "find b", "find c"]}', 2, BRAINSTORM) == ["find a", "find b"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"tasks": ["a", "b', "truncated"),
        ('{"task": ["a"]}', "missing_field"),
        ('{"tasks": ["a"], "note": "b"}', "extra_field"),
        ('{"tasks": "a"}', "not_a_list"),
        ('{"tasks": [" ", 3]}', "no_tasks"),
        ('{"tasks": []}', "no_tasks"),
    ],
)
def test_reasons_for_tasks(text: str, why: str) -> None:
    with pytest.raises(Rejected) as rejected:
        parse.parse_tasks(text, 5, BRAINSTORM)
    assert rejected.value.reason == why


def test_a_task_in_another_form_of_unicode_is_the_same() -> None:
    reply = '{"tasks": ["Trouve le café.", "trouve le cafe\u0301.", "Ｔｒｏｕｖｅ le café."]}'
    assert parse.parse_tasks(reply, 5, BRAINSTORM) == ["Trouve le café."]


def test_tasks_follow_their_schema() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate({"tasks": ["a", "b"]}, parse.tasks_schema(2))
    for wrong in ({"tasks": []}, {"tasks": ["a", "b", "c"]}, {"tasks": [1]}, {"tasks": ["a"], "b": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, parse.tasks_schema(2))
