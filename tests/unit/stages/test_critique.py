"""Revisions by the teacher: checked as any example of their row, kept with the prompt that the revisor will get."""

import json
import random

import pytest

from speed_ray import kinds
from speed_ray.engines.base import Reply, Sample
from speed_ray.engines.fake_text import fake_reply
from speed_ray.miniature import teacher
from speed_ray.prompts.parse import REMARKS, critique_schema, parse_critique
from speed_ray.prompts.render import Prompts
from speed_ray.recipes import schema
from speed_ray.records import Rejected
from speed_ray.stages import example_request
from speed_ray.stages.critique import Critique
from speed_ray.storage.planned_rows import Inputs, PlannedRow
from speed_ray.storage.run import CANDIDATES, REVISIONS

STS = kinds.load_kind("sts")
REVISED = {"S1": "the lamp hums at night", "S2": "at night the lamp hums", "S3": "the lamp hums at noon"}
SAID = {"relevance": "It fits.", "completeness": "A little short.", "accuracy": "S2 is wrong.", "revision": REVISED}
GERMAN = "Die Lampe summt jede Nacht, und niemand im Haus kann schlafen."


def reason(said, slots=None, language="English"):
    with pytest.raises(Rejected) as rejected:
        parse_critique(json.dumps(said, ensure_ascii=False), STS, slots or {"min_words": 4}, language, [])
    return rejected.value.reason


def test_a_critique_is_read():
    remarks, fields = parse_critique(
        f"<think>{{hm}}</think>```json\n{json.dumps(SAID)}\n```", STS, {"min_words": 4}, "English", []
    )
    assert fields == REVISED
    assert remarks == {name: SAID[name] for name in REMARKS}


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"relevance": 3}, "not_a_string"),
        ({"accuracy": " "}, "blank_field"),
        ({"verdict": "fine"}, "extra_field"),
        ({"revision": "the same, better"}, "not_an_object"),
        ({"revision": [REVISED]}, "not_an_object"),
        ({"revision": {"S1": "a b c d", "S2": "b a c d"}}, "missing_field"),
        ({"revision": REVISED | {"S4": "and more"}}, "extra_field"),
        ({"revision": REVISED | {"S2": REVISED["S1"]}}, "same_text"),
        ({"revision": REVISED | {"S2": "lamp"}}, "too_short"),
        ({"revision": REVISED | {"S2": GERMAN}}, "wrong_language"),
    ],
)
def test_a_critique_is_rejected(changed, why):
    assert reason(SAID | changed) == why


def test_remarks_are_the_teachers_own():
    rng = random.Random(0)
    asked = Prompts().critique(STS, STS.slots(rng), "Lamps", "", "English", json.dumps(REVISED), rng)
    shown = "one sentence: do its texts serve the request, and do they fit each other as it wants?"
    for said in (SAID | {"relevance": shown}, SAID | {"revision": REVISED | {"S1": "a phrase on the topic"}}):
        with pytest.raises(Rejected, match="placeholder"):
            parse_critique(json.dumps(said), STS, {"min_words": 4}, "English", asked)
    assert parse_critique(json.dumps(SAID), STS, {"min_words": 4}, "English", asked)


@pytest.mark.parametrize("name", [*REMARKS, "revision"])
def test_nothing_may_be_left_out(name):
    assert reason({key: value for key, value in SAID.items() if key != name}) == "missing_field"


def test_a_revision_passes_the_checks_of_its_own_row(alignment):
    """What is long enough is said by the slots that the candidate's own prompt had."""
    stage = Critique(alignment.recipe)
    lists = [row for row in alignment.rows(CANDIDATES) if row["kind"] == "retrieval"]
    for parent in lists:
        row = PlannedRow("row", parent, "critique 0")
        request = stage.request(row)
        kind = kinds.load_kind("retrieval")
        assert (
            request.context["slots"]
            == example_request.sample_slots(alignment.recipe, kind, parent["row_id"], example_request.PROPOSE).slots
        )
        said = SAID | {"revision": dict.fromkeys(("user_query", "positive_document", "hard_negative_document"), "so")}
        said["revision"] |= {"positive_document": "too short", "hard_negative_document": "too short as well"}
        with pytest.raises(Rejected, match="too_short"):
            stage.parse(row, request, Reply([Sample(json.dumps(said), "stop", 1)], 1, 0.0))


def test_a_revision_is_a_lesson_in_the_revisors_own_prompt(alignment):
    prompts, lists = Prompts(alignment.recipe.prompts), {row["id"]: row for row in alignment.rows(CANDIDATES)}
    revisions = alignment.rows(REVISIONS)
    assert len(revisions) == 46
    for row in revisions:
        parent, kind = lists[row["parent_id"]], kinds.load_kind(row["kind"])
        assert row["example"] in parent["candidates"]
        asked = prompts.revise(kind, row["topic"], parent["task"], parent["language"], row["example"])
        assert row["messages"] == asked
        assert list(json.loads(row["reply"])) == [field.name for field in kind.fields]


def test_the_teachers_revisions_are_truer(alignment):
    truths = [
        [teacher.score(row, json.loads(row[answer])) for answer in ("example", "reply")]
        for row in alignment.rows(REVISIONS)
    ]
    assert all(before <= after for before, after in truths)
    assert sum(before < after for before, after in truths) > len(truths) / 2


def test_several_candidates_of_a_list_are_each_criticised_once(alignment):
    recipe = alignment.recipe.model_copy(update={"critique": schema.Critique(candidates=3)})
    planned = Inputs(alignment.run.artifact(CANDIDATES), Critique(recipe).plan(alignment.run))
    ask = Critique(recipe).request
    of_a_list: dict[str, list[str]] = {}
    for row in planned.of_shard(0):
        of_a_list.setdefault(row.parent["id"], []).append(ask(row).context["example"])
    assert all(len(set(examples)) == len(examples) == 3 for examples in list(of_a_list.values())[:-1])


def test_a_list_without_that_many_candidates_is_rejected_unasked(alignment):
    stage = Critique(alignment.recipe)
    row = PlannedRow("row", alignment.rows(CANDIDATES)[0] | {"candidates": ["{}", "{}"]}, "critique 2")
    assert stage.request(row) is None
    with pytest.raises(Rejected, match="no_candidate"):
        stage.without_model(row)


def test_any_candidate_of_a_list_may_be_criticised(alignment):
    lists = {row["id"]: row["candidates"] for row in alignment.rows(CANDIDATES)}
    places = {lists[row["parent_id"]].index(row["example"]) for row in alignment.rows(REVISIONS)}
    assert places == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("name", kinds.kind_names())
def test_an_invented_critique_is_one(name):
    kind = kinds.load_kind(name)
    for seed in range(30):
        rng = random.Random(seed)
        slots = kind.slots(rng)
        parse_critique(fake_reply(critique_schema(kind), rng, {"slots": slots}), kind, slots, "English", [])
