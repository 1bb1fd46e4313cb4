"""Candidates: all samples of a prompt are kept raw, those that are fit and differ are listed."""

import contextlib

import pytest

from speed_ray import kinds
from speed_ray.engines.base import Reply, Sample
from speed_ray.prompts.parse import parse_example
from speed_ray.records import Rejected
from speed_ray.stages import example_request
from speed_ray.stages.draft import Draft
from speed_ray.stages.propose import Propose
from speed_ray.stages.synthesize import Synthesize
from speed_ray.storage.planned_rows import PlannedRow
from speed_ray.storage.run import CANDIDATES
from speed_ray.storage.shards import REPLIES
from tests.helpers.passages import grounded_recipe, passage, publish_passages

FIT = '{"S1": "the lamp hums at night", "S2": "at night the lamp hums", "S3": "the lamp hums at noon"}'
OTHER = FIT.replace("lamp", "kettle")


@pytest.fixture
def parse(alignment):
    """Understand the samples of one sts prompt."""
    stage = Propose(alignment.recipe, alignment.recipe.generator)
    row = PlannedRow("row", {"id": "task", "kind": "sts", "topic": "Lamps", "task": "-"}, "0")

    def parsed(*texts):
        samples = [Sample(text, "stop", 1) for text in texts]
        [record] = stage.parse(row, stage.request(row), Reply(samples, 1, 0.0))
        return record["candidates"]

    return parsed


def test_every_sample_of_every_prompt_is_kept(alignment):
    first = [row for row in alignment.rows(CANDIDATES, REPLIES) if not row["trial"]]
    assert [row["sample"] for row in first] == [0, 1, 2, 3, 4] * 46
    assert len({row["text"] for row in first}) > 46 * 3


def test_candidates_are_the_fit_samples_in_the_order_they_came(alignment):
    texts = {}
    for row in alignment.rows(CANDIDATES, REPLIES):
        texts.setdefault((row["row_id"], row["trial"]), []).append(row["text"])
    last = {row_id: texts[row_id, trial] for row_id, trial in sorted(texts)}
    lists = alignment.rows(CANDIDATES)
    assert len({len(row["candidates"]) for row in lists}) > 1, "the weak model wrote no unfit sample"
    for row in lists:
        kind = kinds.load_kind(row["kind"])
        slots, language, _ = example_request.sample_slots(
            alignment.recipe, kind, row["row_id"], example_request.PROPOSE
        )
        fit = []
        for text in last[row["row_id"]]:
            with contextlib.suppress(Rejected):
                fit.append(example_request.to_json(parse_example(text, kind, slots, language)))
        assert row["candidates"] == fit


def test_a_text_is_listed_once_however_often_it_was_written(parse):
    assert parse(FIT, OTHER, f"```json\n{FIT}\n```") == [FIT, OTHER]


def test_a_list_without_a_fit_sample_is_asked_for_again_because_of_its_first(parse):
    with pytest.raises(Rejected) as rejected:
        parse(FIT.replace("S3", "S4"), "no JSON", "{")
    assert rejected.value.reason == "missing_field"


def test_the_number_of_candidates_decides_the_rows(alignment):
    run, recipe = alignment.run, alignment.recipe
    fewer = recipe.model_copy(update={"propose": recipe.propose.model_copy(update={"candidates": 3})})
    plans = [Propose(each, recipe.generator).plan(run) for each in (recipe, fewer)]
    assert plans[0].digest != plans[1].digest


COMPLETION = {"engine": "vllm", "model": "some/model", "completion": True}


def about(split="train", **keys):
    """The stage of a recipe of documents, and a planned row about a passage."""
    stage = Propose(grounded_recipe(slots={"retrieval": {"form": "question"}}, **keys))
    return stage, PlannedRow("row", passage(3, split), "0")


@pytest.mark.parametrize(
    ("keys", "texts"),
    [
        ({}, ['{"query": "How is a plane kept from rust?"}', '{"query": "What stops rust in a shed?"}']),
        ({"generator": COMPLETION}, ["How is a plane kept from rust?", "What stops rust in a shed?"]),
    ],
)
def test_candidates_about_a_passage_are_written_as_the_generator_will_write(keys, texts):
    stage, row = about(**keys)
    samples = [Sample(f" {text}\n", "stop", 1) for text in (*texts, texts[0], "Clean its edge with oil after work.")]
    [record] = stage.parse(row, stage.request(row), Reply(samples, 1, 0.0))
    assert record["candidates"] == texts and record["parent_id"] == row.parent["id"]


def test_a_line_without_an_end_is_no_candidate():
    stage, row = about(generator=COMPLETION)
    samples = [Sample(" How is a plane kept from", "length", 1), Sample(" What stops rust in a shed?", "stop", 1)]
    [record] = stage.parse(row, stage.request(row), Reply(samples, 1, 0.0))
    assert record["candidates"] == ["What stops rust in a shed?"]


@pytest.mark.parametrize("make", [Propose, Draft])
def test_nothing_is_learnt_from_a_held_out_passage(make):
    stage, (_, row) = make(grounded_recipe()), about("held_out")
    assert stage.request(row) is None
    with pytest.raises(Rejected, match="held_out: nothing is learnt from the document d3"):
        stage.without_model(row)
    assert Synthesize(grounded_recipe()).request(row), "the embedder is chosen by queries about it"


def test_as_many_lists_are_planned_as_said(run):
    publish_passages(run, [passage(number) for number in range(9)])
    assert [Propose(grounded_recipe(propose={"lists": lists})).plan(run).rows for lists in (4, 400)] == [4, 9]
