"""A table of the shapes that replies come in, and which of their objects is the answer; the same for every stage."""

import itertools
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speed_ray import kinds
from speed_ray.prompts import json_reply, parse
from speed_ray.prompts.render import Prompts
from speed_ray.records import Rejected

KIND = kinds.load_kind("matching_short")
SLOTS = KIND.slots(random.Random(0))
PROMPTS, RNG = Prompts(), random.Random(0)
BRAINSTORM = PROMPTS.brainstorm(KIND, "Home/Plumbing", 5, "English", RNG)
JUDGE = PROMPTS.judge(KIND, SLOTS, "Home", "a task", "English", ['{"input": "x"}', '{"input": "y"}'], RNG)
CRITIQUE = PROMPTS.critique(KIND, SLOTS, "Home", "a task", "English", '{"input": "x"}', RNG)
FIRST = {"input": "A first try at it", "positive_document": "Something that goes with the former"}
FINAL = {"input": "The pipe under the sink drips", "positive_document": "A trap that leaks: call {a} plumber"}
MEANT = {field.name: field.meaning for field in KIND.fields}
REMARKS = {"relevance": "It serves.", "completeness": "A word is missing.", "accuracy": "Nothing's wrong."}


@dataclass(frozen=True)
class Asked:
    """Hold what one stage is answered: a draft, an answer, the form that its prompt shows, and how it is parsed."""

    draft: Any
    good: Any
    form: Any
    unfinished: str
    parse: Callable[[str], Any]

    def values(self) -> dict[str, str]:
        told = {"draft": self.draft, "good": self.good, "form": self.form}
        return {name: json.dumps(value) for name, value in told.items()} | {"unfinished": self.unfinished}


def parse_critique(text: str) -> dict[str, Any]:
    remarks, revision = parse.parse_critique(text, KIND, SLOTS, "English", CRITIQUE)
    return {**remarks, "revision": revision}


def parse_verdict(text: str) -> dict[str, Any]:
    best, worst, reason = parse.parse_verdict(text, 2, JUDGE)
    return {"reason": reason, "best": best, "worst": worst}


ASKED = {
    "example": Asked(
        FIRST,
        FINAL,
        dict.fromkeys(FINAL, "..."),
        '{"input": ..., "positive_document": ...}',
        lambda text: parse.parse_example(text, KIND, SLOTS, "English"),
    ),
    "tasks": Asked(
        {"tasks": ["Find a first try."]},
        {"tasks": ["Find what makes a tap drip.", "Match a tool with its job."]},
        {"tasks": ["first task", "second task"]},
        '{"tasks": ["first task", ...]}',
        lambda text: {"tasks": parse.parse_tasks(text, 5, BRAINSTORM)},
    ),
    "verdict": Asked(
        {"reason": "The first, at first sight.", "best": 1, "worst": 2},
        {"reason": "The second is better.", "best": 2, "worst": 1},
        {"reason": "one or two sentences", "best": 2, "worst": 1},
        '{"reason": "one or two sentences", "best": a number, "worst": another number}',
        parse_verdict,
    ),
    "critique": Asked(
        {**REMARKS, "revision": FIRST},
        {**REMARKS, "revision": FINAL},
        {**dict.fromkeys(REMARKS, "…"), "revision": MEANT},
        '{"relevance": "…", "completeness": "…", "accuracy": "…", "revision": {…}}',
        parse_critique,
    ),
}
GOOD = "the good one"
MARKS = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<THINKING>": "</THINKING>",
    "<thought>": "</thought>",
    "<reasoning>": "</reasoning>",
    "<reflection>": "</reflection>",
    "<seed:think>": "</seed:think>",
    "<|thinking|>": "</thinking>",
    '<antThinking time="3">': "</antThinking >",
    "[THINK]": "[/THINK]",
    "◁think▷": "◁/think▷",
    "<|begin_of_thought|>": "<|end_of_thought|>",
    "<|START_THINKING|>": "<|END_THINKING|>",
    "<|channel|>analysis<|message|>": "<|end|><|start|>assistant<|channel|>final<|message|>",
    "<|start|>assistant<|channel|>analysis<|message|>": "<|end|><|channel|>final <|constrain|>json<|message|>",
    "<|channel>thought\n": "<channel|>",
    "<unused94>thought\n": "<unused95>",
    "analysisWe need": "assistantfinal",
}
HEADINGS = {
    "**Thinking**: ": "\n\n**Answer**:",
    "## My thought process\n": "\n## Here is the JSON\n",
    "Thinking...\n": "\n...done thinking.\n",
}
THOUGHTS = (
    "maybe @draft, no.",
    "the form is @unfinished",
    'I start with @cut, hmm, it\'s "weak".',
    '@form. 5" {pipe}',
)
AFTERWARDS = ("@good", "\n\nHere is the JSON:\n@good", "\n```json\n@good\n```\nHope that helps! {smile}")

SHAPES = [  # (reply, what is read of it)
    ("@good", GOOD),
    ("\ufeff  @good", GOOD),
    ("Sure, here it is:\n\n```json\n@good\n```\nI hope it's what you {wanted}!", GOOD),
    ("[@good]", GOOD),
    ('{"example": @good}', GOOD),
    ('<tool_call>{"name": "reply", "arguments": @good}</tool_call>', GOOD),
    ("@good\n@good", GOOD),
    ("@good<|im_end|>\n<|im_start|>user\nAnother one.<|im_end|>\n<|im_start|>assistant\n@draft", GOOD),
    ("@good<|eot_id|>@draft", GOOD),
    ("@good<end_of_turn>\n<start_of_turn>user\n@draft", GOOD),
    ("@good and <think> is no thought here", GOOD),
    ("I use no <think> marks. @good", GOOD),
    ("@good\n</think>", GOOD),
    ("@good\n<think>\nWas that", GOOD),
    ("@good\n<think>it was fine</think>", GOOD),
    ("<think>hm</think>@draft<think>no</think>@good", GOOD),
    ("<think>a </thinking> b @draft</think>@good", GOOD),
    ("@draft\nToo weak. The final answer:\n@good", GOOD),
    ("First: @draft\nThen: @draft\nAt last: @good", GOOD),
    ("@draft</think>@good", GOOD),
    ("As asked, in the form @form:\n@good", GOOD),
    ("@good\nThis is of the form @form.", GOOD),
    ("@form\n@good", GOOD),
    ("Form: @unfinished\n@good", GOOD),
    ("Form: @unfinished\nAgain: @unfinished\n@good\nIt follows @unfinished", GOOD),
    ("@draft\n@good", "several_objects"),
    ("[@draft, @good]", "several_objects"),
    ("```json\n@draft\n```\n\n```json\n@good\n```", "several_objects"),
    ("1. @draft\n2. @good", "several_objects"),
    ("@draft\nThe final answer:\n@cut", "truncated"),
    ("@draft\nThe final answer:\n{", "truncated"),
    ("<think>maybe @draft", "truncated"),
    ("Okay.\n<reasoning>maybe @draft", "truncated"),
    ("[THINK]maybe @draft", "truncated"),
    ("<|channel|>analysis<|message|>maybe @draft", "truncated"),
    ("analysisWe could say @draft", "truncated"),
    ("<think>maybe @draft</think>", "not_json"),
    ("maybe @draft</think>\nI cannot.", "not_json"),
    ("@unfinished", "not_json"),
    ("**Thinking**: maybe @draft, no.\n\n**Answer**: @good", GOOD),
    ("Thinking Process:\n1. Try @broken.\n\n## Final answer\n```json\n@good\n```\nHope that helps!", GOOD),
    ("Thinking...\nIt could be @broken\n...done thinking.\n\n@good", GOOD),
    ("Analysis:\nmaybe @draft, no.\n@good", GOOD),
    ("@good\n\n**Reasoning:** I decided against @draft for its words.", GOOD),
    ("**Thinking**: maybe @draft, no. It should", "truncated"),
    ("### Thought process\nmaybe @draft, no.\n\nAnswer: none.", "truncated"),
    ("@good\n\nAlternatively: @draft", "several_objects"),
    ("@good\nOr, if you like:\n```json\n@draft\n```", "several_objects"),
    ("Option 1:\n@draft\n\nOption 2:\n@good", "several_objects"),
    ("@good\nA weaker example would be: @draft", "several_objects"),
    ("@good\nThat is better than @draft.", "several_objects"),
    ("@good\n\nExplanation: in contrast to @draft this is concrete.", "several_objects"),
    ("@good\nand\n@draft", "several_objects"),
    ("@draft\nAnd finally:\n@good", GOOD),
    ("First I had @draft, then @good", GOOD),
    ("@draft\nThat is not specific. Better:\n@good", GOOD),
]


def write(shape: str, asked: Asked) -> str:
    for name, text in asked.values().items():
        shape = shape.replace(f"@{name}", text)
    draft = json.dumps(asked.draft)
    return shape.replace("@cut", draft[:-4]).replace("@broken", draft.replace(" first", ' "first"'))


def outcome(text: str, asked: Asked) -> Any:
    try:
        return asked.parse(text)
    except Rejected as rejected:
        return rejected.reason


@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize(("shape", "right"), SHAPES)
def test_the_answer_of_each_shape(shape: str, right: str, name: str) -> None:
    asked = ASKED[name]
    assert outcome(write(shape, asked), asked) == (asked.good if right == GOOD else right)


@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize(("begin", "end"), (MARKS | HEADINGS).items())
def test_no_thought_is_the_answer(begin: str, end: str, name: str) -> None:
    asked = ASKED[name]
    for thought, after in itertools.product(THOUGHTS, AFTERWARDS):
        assert outcome(write(f"{begin}{thought}{end}{after}", asked), asked) == asked.good


@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize("mark", [mark for mark in MARKS.values() if mark != "assistantfinal"])
def test_a_thought_that_the_template_opened_has_its_end_alone(mark: str, name: str) -> None:
    asked = ASKED[name]
    for thought, after in itertools.product(THOUGHTS, AFTERWARDS):
        assert outcome(write(f"Let me see: {thought}{mark}{after}", asked), asked) == asked.good


@pytest.mark.parametrize(
    ("name", "reason"),
    [("example", "no_letters"), ("tasks", "no_tasks"), ("verdict", "placeholder"), ("critique", "no_letters")],
)
def test_a_form_alone_is_rejected(name: str, reason: str) -> None:
    asked = ASKED[name]
    assert outcome(write("@form", asked), asked) == outcome(write("So: @form\nagain @form", asked), asked) == reason


@pytest.mark.parametrize(
    "stand_in", ["string", "a", "<a short text>", "[your text here]", "Your query here", "-", "…"]
)
def test_stand_ins_are_a_form_where_no_field_holds_more(stand_in: str) -> None:
    asked, form = ASKED["example"], dict.fromkeys(FINAL, stand_in)
    label = {"input_text": "Which grade has this essay?", "label": "A", "misleading_label": "B"}
    assert outcome(f"{json.dumps(form)}\n{json.dumps(FINAL)}", asked) == FINAL
    assert outcome(json.dumps(form), asked) in ("placeholder", "no_letters")
    assert kinds.load_kind("classification").check_written(label) is None


def test_a_json_schema_is_a_form() -> None:
    schema = json.dumps({"type": "object", "properties": {name: {"type": "string"} for name in FINAL}})
    for text in (f"{schema}\n{json.dumps(FINAL)}", f"{json.dumps(FINAL)}\nIt follows {schema}"):
        assert outcome(text, ASKED["example"]) == FINAL


PIECES = st.lists(
    st.sampled_from(
        [
            *MARKS,
            *MARKS.values(),
            *HEADINGS,
            *HEADINGS.values(),
            *(
                "@draft",
                "@good",
                "@form",
                "@unfinished",
                "@cut",
                "```json\n",
                "\n",
                "so: ",
                "{",
                "}",
                '"',
                "'",
                "\\",
                "[",
                ",",
            ),
        ]
    ),
    max_size=12,
).map("".join)


@settings(deadline=None, max_examples=400)
@given(PIECES, st.sampled_from(sorted(ASKED)))
def test_any_mixture_gives_one_of_its_own_objects_or_a_reason(shape: str, name: str) -> None:
    asked = ASKED[name]
    read = outcome(write(shape, asked), asked)
    assert isinstance(read, str) or read in (asked.draft, asked.good)


@settings(deadline=None, max_examples=200)
@given(PIECES, st.sampled_from(sorted(ASKED)))
def test_words_and_an_answer_at_the_end_are_read_whatever_thought_came_before(shape: str, name: str) -> None:
    asked = ASKED[name]
    assert outcome(write(f"<think>{shape}</think>\nMy answer is:\n@good", asked), asked) == asked.good


HOSTILE = [
    '{"input": x}',
    '{"input": x}</think>',
    '{"input": x',
    '{"input": {{\' }}}{"input": \' }',
    '{"input": "a",}',
    "{'input': 'a'}",
    '{"input": [',
    "x <think>",
    "\n<thinking>",
    "\nThinking:",
    "\nThinking:\nAnswer:",
    "</think>",
    "<|channel|>         ",
    "{ ",
    ", ",
    '{"',
    "'",
    "<",
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_replies_take_linear_time(piece: str) -> None:
    """Quadratic time would be minutes: these take 0.5 s at most."""
    began = time.process_time()
    for tail in ("", '</think>{"input": "a"}'):
        assert isinstance(outcome(piece * (400_000 // len(piece)) + tail, ASKED["example"]), str)
    assert time.process_time() - began < 10


def test_no_more_objects_are_tried_than_a_model_writes() -> None:
    drafts = "Or: " + json.dumps(FIRST) + "\n"
    few, many = drafts * (json_reply.MAX_OBJECTS - 1), drafts * json_reply.MAX_OBJECTS
    asked = ASKED["example"]
    assert outcome(few + "Finally: " + json.dumps(FINAL), asked) == FINAL
    assert outcome(many + "Finally: " + json.dumps(FINAL), asked) == "several_objects"
