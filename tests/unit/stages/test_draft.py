"""Lessons: what the junior is to answer, in the form in which it will be asked; no two stages put a task alike."""

import json
import random

from speed_ray import kinds
from speed_ray.engines.base import Reply, Sample
from speed_ray.prompts.parse import parse_example
from speed_ray.records import seed_of
from speed_ray.stages import example_request
from speed_ray.stages.draft import Draft
from speed_ray.storage.planned_rows import PlannedRow
from speed_ray.storage.run import CANDIDATES, DRAFTS, EXAMPLES
from speed_ray.storage.shards import REPLIES
from tests.helpers.passages import grounded_recipe, passage


def test_a_lesson_is_a_fit_example_with_its_fields_in_the_order_of_its_kind(alignment):
    lessons = alignment.rows(DRAFTS)
    assert len(lessons) == 46 and {row["kind"] for row in lessons} == set(kinds.kind_names())
    for row in lessons:
        kind = kinds.load_kind(row["kind"])
        slots, language, _ = example_request.sample_slots(alignment.recipe, kind, row["row_id"], example_request.DRAFT)
        fields = parse_example(row["reply"], kind, slots, language)
        assert list(json.loads(row["reply"])) == [field.name for field in kind.fields]
        assert example_request.to_json(fields) == row["reply"]


def test_a_lessons_prompt_is_the_one_that_was_asked(alignment):
    asked = {row["row_id"]: row["messages"] for row in alignment.rows(DRAFTS, REPLIES)}
    assert {row["row_id"]: row["messages"] for row in alignment.rows(DRAFTS)} == asked


def test_each_stage_puts_the_same_task_otherwise(alignment):
    prompts = [
        {row["row_id"]: row["messages"][0]["content"] for row in alignment.rows(name, REPLIES) if not row["trial"]}
        for name in (DRAFTS, CANDIDATES, EXAMPLES)
    ]
    assert prompts[0].keys() == prompts[1].keys() == prompts[2].keys()
    differing = sum(len({of_stage[row_id] for of_stage in prompts}) == 3 for row_id in prompts[0])
    assert differing > len(prompts[0]) / 2  # two slots of a short recipe may well be drawn alike


def test_what_synthesize_draws_is_what_it_drew_before_there_were_other_stages(alignment):
    recipe, kind = alignment.recipe, kinds.load_kind("retrieval")
    for row_id in ("a", "b", "c"):
        rng = random.Random(seed_of(recipe.seed, row_id, "slots"))
        slots = kind.slots(rng) | recipe.slots["retrieval"]
        drawn = example_request.sample_slots(recipe, kind, row_id, example_request.SYNTHESIZE)
        assert (drawn.slots, drawn.language, drawn.rng.random()) == (slots, rng.choices(["English"])[0], rng.random())


def test_an_unfit_lesson_is_no_lesson(begin_alignment, weak):
    made = begin_alignment("draft.max_retries=0")
    artifact = made.make(Draft(made.recipe), weak)
    counts = artifact.manifest()["counts"]
    assert counts["reasons"]["not_json"] and counts["rejected"] == 46 - len(made.rows(DRAFTS))


def test_a_teacher_that_chats_gives_lessons_to_a_generator_that_continues_lines():
    lines = {"engine": "vllm", "model": "some/model", "completion": True}
    recipe = grounded_recipe(
        teacher={"engine": "simulated"}, generator=lines, slots={"retrieval": {"form": "question"}}
    )
    stage, row = Draft(recipe), PlannedRow("row", passage(3), "0")
    request = stage.request(row)
    [lesson] = stage.parse(row, request, Reply([Sample('{"query": "What stops rust in a shed?"}', "stop", 9)], 9, 0.1))
    assert request.schema and "Reply with one JSON object" in request.messages[0]["content"]
    assert lesson["reply"] == "What stops rust in a shed?"
    assert lesson["messages"][0]["content"].endswith("keep it from damp.\nQuestion:")
