"""Write about passages: each is one side of its examples, and is not asked the same twice."""

import asyncio
import json
from pathlib import Path

import pytest

from speed_ray import recipes
from speed_ray.console import status
from speed_ray.engines.base import Reply, Request, Sample
from speed_ray.errors import UserError
from speed_ray.evaluation import parse_rate
from speed_ray.executor.shard_worker import Worker
from speed_ray.kinds import retrieval
from speed_ray.recipes.schema import Recipe
from speed_ray.records import Rejected
from speed_ray.stages.neighbours import publish_neighbours
from speed_ray.stages.synthesize import Synthesize
from speed_ray.storage.planned_rows import Inputs, PlannedRow
from speed_ray.storage.run import Run
from speed_ray.storage.verify import verify
from speed_ray.text import rules
from tests.helpers.passages import grounded_recipe, passage, publish_passages

COMPLETION = {"engine": "vllm", "model": "some/model", "completion": True}


def planned(run: Run, recipe: Recipe) -> list[PlannedRow]:
    stage = Synthesize(recipe)
    plan = stage.plan(run)
    inputs = Inputs(run.artifact("passages"), plan)
    return [row for shard in range(plan.shards) for row in inputs.of_shard(shard)]


def replied(text: str, finish_reason: str = "stop") -> Reply:
    return Reply([Sample(text, finish_reason, 9)], 9, 0.1)


def asked(recipe: Recipe, number: int = 3, variant: str = "0", split: str = "train") -> tuple[PlannedRow, Request]:
    row = PlannedRow(f"row {number} {variant}", passage(number, split), variant)
    return row, Synthesize(recipe).request(row)


def test_each_passage_is_asked_about_as_often_as_said(run):
    publish_passages(run, [passage(number) for number in range(10)])
    rows = planned(run, grounded_recipe(synthesize={"per_passage": 3}))
    assert [row.parent["document_id"] for row in rows] == [f"d{number}" for number in range(10) for _ in range(3)]
    assert len({row.row_id for row in rows}) == 30


def test_fewer_prompts_than_passages_are_spread_evenly(run):
    publish_passages(run, [passage(number) for number in range(10)])
    rows = planned(run, grounded_recipe(synthesize={"per_passage": 2, "examples": 5}))
    assert [row.parent["document_id"] for row in rows] == ["d0", "d0", "d3", "d3", "d6"]


def test_more_prompts_than_there_are_passages_for_are_not_planned(run):
    publish_passages(run, [passage(0)])
    assert len(planned(run, grounded_recipe(synthesize={"per_passage": 2, "examples": 50}))) == 2


def test_prompts_about_one_passage_ask_for_different_forms():
    recipe = grounded_recipe()
    forms = [[asked(recipe, number, str(v))[1].context["slots"]["form"] for v in range(6)] for number in range(30)]
    assert all(sorted(each) == sorted(retrieval.FORMS) for each in forms)
    assert len({each[0] for each in forms}) == 6  # and passages differ in which comes first


@pytest.mark.parametrize("generator", [{"engine": "simulated"}, COMPLETION])
def test_prompts_about_one_passage_share_all_up_to_its_end(generator):
    recipe = grounded_recipe(generator=generator)
    one, other = (asked(recipe, 3, variant)[1].messages[0]["content"] for variant in "01")
    end = one.index("keep it from damp.") + len("keep it from damp.")
    assert one != other and other.startswith(one[:end])


def test_an_example_has_the_passage_with_its_title_for_its_positive():
    recipe = grounded_recipe()
    row, request = asked(recipe)
    slots = request.context["slots"]
    query = " ".join(f"word{number}" for number in range(slots["min_words"]))
    [example] = Synthesize(recipe).parse(row, request, replied(json.dumps({"query": query})))
    assert example["query"] == query
    assert example["positive"] == f"{row.parent['title']} {row.parent['text']}"
    assert (example["parent_id"], example["topic"]) == (row.parent["id"], row.parent["title"])
    assert (example["negatives"], example["instruction"]) == ([], "")


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("Here are two questions that a user might ask:", "not_json"),
        ('{"question": "How is a plane kept from rust in a shed?"}', "missing_field"),
        ('{"query": "Clean its edge with oil after work, and keep it from damp."}', "copied"),
        ('{"query": "What does the passage say about the care of edges?"}', "names_passage"),
        ('{"query": "Here is a question about planes and their care:"}', "prose"),
        ('{"query": "What the user types, in the words of somebody who has not read the passage"}', "placeholder"),
    ],
)
def test_a_reply_that_is_no_query_is_rejected_for_what_it_is(written, reason):
    recipe = grounded_recipe(slots={"retrieval": {"form": "question"}})
    row, request = asked(recipe)
    with pytest.raises(Rejected) as rejected:
        Synthesize(recipe).parse(row, request, replied(written))
    assert rejected.value.reason == reason


@pytest.mark.parametrize(
    ("written", "query"),
    [
        (" How is a plane kept from rust in a shed?", "How is a plane kept from rust in a shed?"),
        (' Query: "How is a plane kept from rust in a shed?"', "How is a plane kept from rust in a shed?"),
        ("\n1. How is a plane kept from rust in a shed?\n2. Why?", "How is a plane kept from rust in a shed?"),
    ],
)
def test_a_continued_line_is_read_without_what_stands_around_it(written, query):
    recipe = grounded_recipe(generator=COMPLETION, slots={"retrieval": {"form": "question"}})
    row, request = asked(recipe)
    assert request.schema is None and request.messages[0]["content"].endswith("\nQuestion:")
    [example] = Synthesize(recipe).parse(row, request, replied(written))
    assert example["query"] == query


@pytest.mark.parametrize(
    ("written", "finish_reason", "reason"),
    [
        (" Here are two questions:", "stop", "prose"),
        ("  ", "stop", "blank_field"),
        (" How is a plane kept from", "length", "unfinished"),
        (" The plane number 3 hangs at the wall. Clean its edge with oil after work.", "stop", "copied"),
    ],
)
def test_a_continued_line_that_is_no_query_is_rejected(written, finish_reason, reason):
    recipe = grounded_recipe(generator=COMPLETION, slots={"retrieval": {"form": "question"}})
    row, request = asked(recipe)
    with pytest.raises(Rejected) as rejected:
        Synthesize(recipe).parse(row, request, replied(written, finish_reason))
    assert rejected.value.reason == reason


RASP = "Brush the teeth of a rasp with a wire brush and rub them with chalk."


def contrasted(recipe: Recipe, neighbour: str = RASP, variant: str = "0") -> tuple[PlannedRow, Request]:
    parent = {**passage(3), "neighbour_id": "n", "neighbour": neighbour}
    row = PlannedRow(f"row {variant}", parent, variant)
    return row, Synthesize(recipe).request(row)


@pytest.mark.parametrize("generator", [{"engine": "simulated"}, COMPLETION])
def test_a_neighbour_is_shown_in_one_line_before_the_passage(generator):
    recipe = grounded_recipe(generator=generator)
    shown, alone = (
        request.messages[0]["content"]
        for _, request in (contrasted(recipe, RASP.replace(" rasp ", "\nrasp  ")), asked(recipe))
    )
    assert shown.index(f": {RASP}\n") < shown.index(passage(3)["text"]) and RASP not in alone


@pytest.mark.parametrize("generator", [{"engine": "simulated"}, COMPLETION])
def test_prompts_with_a_neighbour_share_all_up_to_the_passages_end(generator):
    recipe = grounded_recipe(generator=generator)
    one, other = (contrasted(recipe, variant=variant)[1].messages[0]["content"] for variant in "01")
    end = one.index("keep it from damp.") + len("keep it from damp.")
    assert one != other and other.startswith(one[:end])


def test_our_examples_have_neighbours_where_one_is_shown():
    recipe, shots = grounded_recipe(generator=COMPLETION), retrieval.GROUNDED.shots
    told = [request.messages[0]["content"] for _, request in (asked(recipe), contrasted(recipe))]
    assert [[shot.neighbour in each for shot in shots] for each in told] == [[False] * 3, [True] * 3]
    assert all(not rules.own_words(*line, shot.neighbour) for shot in shots for line in shot.lines.items())


def test_a_query_that_repeats_the_neighbour_is_rejected():
    recipe = grounded_recipe(slots={"retrieval": {"form": "question"}})
    row, request = contrasted(recipe)
    with pytest.raises(Rejected) as rejected:
        Synthesize(recipe).parse(row, request, replied(json.dumps({"query": RASP})))
    assert rejected.value.reason == "copied_neighbour"


def test_what_no_passage_answers_is_asked_for_without_a_neighbour():
    _, request = contrasted(grounded_recipe(mix={"sts": 1}))
    assert RASP not in request.messages[0]["content"] and "neighbour" not in request.context


def test_prompts_with_neighbours_have_the_ids_of_those_without(run):
    publish_passages(run, [passage(number) for number in range(4)])
    recipe = grounded_recipe(synthesize={"contrast": True})
    with pytest.raises(UserError, match=r"neighbours is not finished.*\n.*speed-ray read-documents"):
        Synthesize(recipe).plan(run)
    publish_neighbours(run, recipe.curate)
    plan = Synthesize(recipe).plan(run)
    rows = Inputs(run.artifact(plan.input), plan).of_shard(0)
    assert [row.row_id for row in rows] == [row.row_id for row in planned(run, grounded_recipe())]
    assert all(row.parent["neighbour"] for row in rows)


def test_a_neighbour_as_long_as_a_passage_may_be_counts_for_the_window():
    asking = [grounded_recipe(synthesize={"contrast": contrast}) for contrast in (False, True)]
    alone, both = (len(next(Synthesize(each).shortest_requests()).messages[0]["content"]) for each in asking)
    assert both > alone + len("the ") * asking[0].corpus.tokens - 2


def own_examples(tmp_path: Path, count: int) -> dict[str, object]:
    path = tmp_path / "pairs.jsonl"
    rows = [{"query": f"what is thing {n} good for", "passage": f"Thing {n} serves."} for n in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"corpus": {"source": "docs", "examples": str(path)}}


def test_the_users_examples_are_shown_and_set_the_length(tmp_path):
    recipe = grounded_recipe(**own_examples(tmp_path, 3))
    _, request = asked(recipe)
    assert "what is thing 2 good for" in request.messages[0]["content"]
    assert "ourdough" not in request.messages[0]["content"]
    assert request.context["slots"] == {"form": "query", "min_words": 4, "max_words": 7}


def test_at_most_eight_of_them_are_shown_the_same_for_all_prompts_of_a_passage(tmp_path):
    recipe = grounded_recipe(**own_examples(tmp_path, 30))
    texts = [asked(recipe, number, variant)[1].messages[0]["content"] for number in (1, 2) for variant in "01"]
    shown = [tuple(line for line in text.splitlines() if "what is thing" in line) for text in texts]
    assert len(shown[0]) == 8 and shown[0] == shown[1] != shown[2] == shown[3]


def test_they_are_never_shown_to_a_held_out_document(tmp_path):
    _, request = asked(grounded_recipe(**own_examples(tmp_path, 3)), split="held_out")
    assert "thing 2" not in request.messages[0]["content"]
    assert request.context["slots"]["form"] in retrieval.FORMS


def test_a_passages_own_query_is_not_shown_to_it(tmp_path):
    own = own_examples(tmp_path, 3)
    with (tmp_path / "pairs.jsonl").open("a") as file:
        file.write(json.dumps({"query": "a secret", "passage": passage(3)["text"]}) + "\n")
    assert "a secret" not in asked(grounded_recipe(**own), 3)[1].messages[0]["content"]
    assert "a secret" in asked(grounded_recipe(**own), 4)[1].messages[0]["content"]


def test_what_the_users_examples_say_decides_the_rows(run, tmp_path):
    publish_passages(run, [passage(0)])
    plans = [Synthesize(grounded_recipe(**own_examples(tmp_path, count))).plan(run).digest for count in (3, 3, 4)]
    assert plans[0] == plans[1] != plans[2]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"mix": {"retrieval": 1, "matching_short": 1}}, "mix: matching_short cannot be written about a passage"),
        ({"synthesize": {"contrast": True}, "mix": {"sts": 1}}, "synthesize.contrast: no passage answers .* of sts"),
        ({"synthesize": {"contrast": True}, "topics": {"source": "miniature://topics"}}, "synthesize.contrast is for"),
        ({"synthesize": {"revise": True}}, "synthesize.revise: .* name an embedder as curate.reference"),
        ({"slots": {"retrieval": {"query_type": "common"}}}, "retrieval has no slot 'query_type'"),
        ({"slots": {"retrieval": {"form": "questoin"}}}, "did you mean 'question'"),
        ({"mix": {"classification": 1}, "generator": COMPLETION}, "classification has several fields"),
        ({"topics": {"source": "miniature://topics"}, "generator": COMPLETION}, "generator.completion"),
        (
            {"topics": {"source": "miniature://topics"}, "synthesize": {"examples": None}},
            "synthesize.examples is null",
        ),
    ],
)
def test_a_recipe_that_passages_cannot_serve_is_refused(keys, said):
    with pytest.raises(UserError, match=said):
        grounded_recipe(**keys)


def test_a_recipe_of_documents_has_its_own_defaults():
    recipe = grounded_recipe(curate={"held_out": 0.1})
    assert (recipe.mix, recipe.synthesize.examples, recipe.teacher) == ({"retrieval": 1}, None, recipe.generator)
    assert (recipe.curate.max_overlap, recipe.curate.held_out) == (None, 0.1)
    assert recipes.load_recipe("miniature").synthesize.examples is not None


class Writer:
    """Writes a query that fits about every other passage, and of the rest the passage back."""

    model, in_flight = "writer", 8

    async def generate(self, request: Request) -> Reply:
        slots, passage = request.context["slots"], request.context["passage"]
        fit = " ".join(f"word{number}" for number in range(slots["min_words"]))
        query = fit if request.seed % 2 else passage
        return Reply([Sample(json.dumps({"query": query}), "stop", 9)], 100, 0.1, cached_tokens=60)


@pytest.fixture
def written(run) -> Run:
    """A run with examples about ten passages."""
    publish_passages(run, [passage(number) for number in range(10)])
    stage = Synthesize(grounded_recipe(synthesize={"max_retries": 0, "shard_rows": 8}))
    plan, artifact = stage.plan(run), run.artifact("examples")
    artifact.ensure_plan(plan)
    worker = Worker(stage, artifact, plan, Inputs(run.artifact("passages"), plan), Writer(), None)
    for shard, generation in artifact.pending(plan):
        asyncio.run(worker.work(shard, generation))
    assert artifact.publish(plan)
    return run


def test_each_prompt_ends_as_an_example_or_a_reject_of_its_kind(written):
    counts = written.artifact("examples").manifest()["counts"]
    assert counts["accepted"] + counts["rejected"] == 20 and counts["rejected"] == counts["reasons"]["copied"]
    assert counts["kinds"] == {"retrieval": counts["accepted"]}
    rejects = [
        row
        for commit in written.artifact("examples").commits()
        if "rejects" in commit.files
        for row in written.artifact("examples").read(commit.files["rejects"].path).to_pylist()
    ]
    assert {row["kind"] for row in rejects} == {"retrieval"} and all(len(row["parent_id"]) == 32 for row in rejects)
    assert verify(written)[-1].holds


def test_the_share_of_the_prompts_that_was_shared_is_told(written):
    assert written.artifact("examples").manifest()["counts"]["cached_tokens"] == 20 * 60
    written.freeze(grounded_recipe())
    assert any("60% of the prompts' tokens shared" in line for line in status.status_lines(written))


def test_replies_about_passages_are_parsed_as_such(written):
    [rate] = parse_rate.measure_parse_rate(written.artifact("examples"))
    assert (rate.replies, rate.parsed) == (20, 20)
