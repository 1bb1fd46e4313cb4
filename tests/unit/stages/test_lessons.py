"""Lessons: what leads to a passage is not shown beside it; it is the reply to the prompt that will be asked later."""

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from speed_ray.console import show, status
from speed_ray.errors import UserError
from speed_ray.records import PassageRow, Row
from speed_ray.stages import lessons
from speed_ray.stages.synthesize import Synthesize
from speed_ray.storage.planned_rows import PlannedRow
from speed_ray.storage.run import DRAFTS, Run
from speed_ray.storage.shards import REJECTS
from speed_ray.storage.verify import verify
from speed_ray.text.words import words_digest
from tests.helpers.grounded_run import passage
from tests.helpers.passages import grounded_recipe, publish_passages

COMPLETION = {"engine": "vllm", "model": "some/model", "completion": True}
OIL = "Wipe the blade with a rag and a drop of oil whenever the day is over, so that no rust begins on it."
TEETH = "Once a year a smith bends each of them a little to its side; then the cut is wider than the steel."
SHED = "Hang it from its handle on a peg, away from the stove, with the edge turned to the boards."


def part(text: str, title: str = "", headings: str = "", document: str = "d", split: str = "train") -> PassageRow:
    return {**passage(text, document, title, split), "headings": headings}


def taught(run: Run, passages: list[PassageRow], **keys: Any) -> tuple[list[Row], list[Row]]:
    """Make lessons of passages. Returns the records and the rejects."""
    publish_passages(run, passages)
    artifact = lessons.publish_lessons(run, lessons.prepare_lessons(run, grounded_recipe(**keys)))
    assert all(verdict.holds for verdict in verify(run))
    files = [commit.files[REJECTS].path for commit in artifact.commits() if REJECTS in commit.files]
    return list(artifact.records()), [row for path in files for row in artifact.read(path).to_pylist()]


def said(lesson: Row) -> str:
    query: str = json.loads(lesson["reply"])["query"]
    return query


def test_a_title_leads_to_the_beginning_of_its_document(run) -> None:
    parts = [part(OIL, "Looking after old saws"), part(TEETH, "Looking after old saws")]
    [lesson], rejects = taught(run, parts)
    assert said(lesson) == "Looking after old saws" and lesson["parent_id"] == parts[0]["id"] and not rejects
    assert OIL in lesson["messages"][0]["content"] and lesson["model"] == "corpus"
    assert "Looking after old saws" not in lesson["messages"][0]["content"], "the reply would be copied"


def test_a_heading_leads_to_the_passage_that_begins_its_section(run) -> None:
    care = "Care\nSetting the bite anew"
    parts = [part(OIL, "Saws", "Care"), part(TEETH, "Saws", care), part(SHED, "Saws", care)]
    made, _ = taught(run, parts)
    assert [(said(each), each["parent_id"]) for each in made] == [("Setting the bite anew", parts[1]["id"])]
    asked = made[0]["messages"][0]["content"]
    assert "It stands under: Care\n" in asked and "The passage's title: Saws" in asked


def test_a_heading_is_taken_out_of_the_text_that_it_begins(run) -> None:
    [lesson], _ = taught(run, [part(f"# Looking after old saws\n\n{OIL}", "Looking after old saws")])
    assert "ooking after old" not in lesson["messages"][0]["content"] and OIL in lesson["messages"][0]["content"]


@pytest.mark.parametrize(
    ("heading", "form"),
    [
        ("Where is the blade kept?", "question"),
        ("刃はどこに置きますか？", "question"),
        ("How to keep a blade", "question"),
        ("Howling winds at sea", "title"),
        ("What else", "title"),
        ("Keeping a blade", "title"),
    ],
)
def test_a_heading_that_asks_is_a_question_and_any_other_a_title(heading: str, form: str) -> None:
    assert lessons.form_of(heading) == form


def test_what_stands_above_several_passages_leads_to_none(run) -> None:
    parts = [part(OIL, "Saw blades", "Notes on care", "d1"), part(TEETH, "Files", "NOTES on care", "d2"),
             part(SHED, "Shed walls", "Hanging things up", "d3")]  # fmt: skip
    made, _ = taught(run, parts)
    assert [said(each) for each in made] == ["Hanging things up"]


def test_no_lesson_is_of_a_held_out_document(run) -> None:
    parts = [part(OIL, "Looking after old saws", document="d1", split="held_out"), part(SHED, "Walls", document="d2"),
             part(TEETH, "Looking after the teeth", document="d3")]  # fmt: skip
    made, rejects = taught(run, parts)
    assert {said(each) for each in made} == {"Looking after the teeth"} and [row["text"] for row in rejects] == [
        "Walls"
    ]


def test_a_corpus_without_titles_has_no_lesson_and_says_what_to_do(run) -> None:
    with pytest.raises(UserError, match=r"draft\.lessons: of the 1 passages none .*\n.*corpus\.examples"):
        taught(run, [part(OIL)])


def test_a_fixed_form_leaves_out_the_others(run) -> None:
    parts = [part(OIL, "Looking after old saws", document="d1"), part(SHED, "Where do saws hang?", document="d2")]
    made, _ = taught(run, parts, slots={"retrieval": {"form": "question"}})
    assert [said(each) for each in made] == ["Where do saws hang?"]


def test_the_prompt_is_the_one_that_the_generator_is_asked() -> None:
    fixed = {"retrieval": {"form": "title", "min_words": 3, "max_words": 6}}
    for number, generator in enumerate(({"engine": "simulated"}, COMPLETION)):
        recipe = grounded_recipe(generator=generator, slots=fixed)
        writer, bare = lessons.LessonWriter(recipe), {**part(OIL), "neighbour": SHED}
        lesson = writer.write("Looking after old saws", bare, "parent", "").record
        assert lesson is not None
        asked = Synthesize(recipe).render(PlannedRow("any row", bare, "0"))
        assert lesson["messages"] == asked.messages and SHED in asked.messages[0]["content"]
        assert lesson["reply"] == ('{"query": "Looking after old saws"}', "Looking after old saws")[number]


@pytest.mark.parametrize(
    ("title", "reason"),
    [
        ("Oil", "too_short"),
        ("Wipe the blade with a rag and a drop of oil", "copied"),
        ("a drop of oil", "copied_query"),
        ("The authors speak of saws", "names_passage"),
    ],
)
def test_a_pair_that_would_fail_as_a_reply_is_rejected_for_the_same_reason(run, title: str, reason: str) -> None:
    made, [reject] = taught(run, [part(OIL, title)])
    assert not made and (reject["reason"], reject["text"], reject["kind"]) == (reason, title, "retrieval")


def test_the_length_asked_for_is_the_replys(run) -> None:
    title = "Keeping rust away from the blades of saws in wet weather"
    [lesson], _ = taught(run, [part(OIL, title)])
    assert "The query has 5 to 10 words." in lesson["messages"][0]["content"]


def test_the_language_is_one_that_the_passage_is_in(run) -> None:
    german = (
        "Nach der Arbeit wird das Sägeblatt mit einem Lappen und einem Tropfen Öl abgerieben, damit es nicht rostet."
    )
    [lesson], _ = taught(run, [part(german, "Pflege alter Sägen")], languages={"English": 9, "German": 1})
    assert "Write query in German." in lesson["messages"][0]["content"]


def test_at_most_so_many_pairs_are_taken_from_all_over_the_corpus(run) -> None:
    parts = [part(f"{OIL} {number}", f"Looking after saw {number}", document=f"d{number}") for number in range(10)]
    made, _ = taught(run, parts, draft={"examples": 4})
    assert [said(each)[-1] for each in made] == ["0", "2", "5", "7"]


def test_a_lesson_leads_back_to_its_passage_and_is_counted(run) -> None:
    [lesson], _ = taught(run, [part(OIL, "Looking after old saws")])
    run.freeze(grounded_recipe())
    console = Console(record=True, width=200)
    show.show_rows(run, DRAFTS, console, row=lesson["id"])
    assert "from passages: text: Wipe the blade" in console.export_text()
    assert "1 rows planned, 1 accepted" in "\n".join(status.status_lines(run))


PAIRS = [
    ("what keeps rust off a saw", OIL),
    ("why is a cut wider than the steel", TEETH),
    ("where does a plane hang in summer", "A plane hangs wherever nobody sits."),
]


def of_user(folder: Path, **draft: Any) -> dict[str, Any]:
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps({"query": query, "passage": text}) + "\n" for query, text in PAIRS))
    return {"corpus": {"source": "docs", "examples": str(path)}, "draft": draft}


def test_the_users_queries_are_lessons_beside_the_others_of_theirs(run, tmp_path: Path) -> None:
    same = {**part(OIL.upper(), "Saws", document="d1"), "digest": words_digest(OIL)}
    made, _ = taught(run, [same, part(SHED, "Walls", document="d2")], **of_user(tmp_path))
    assert [said(each) for each in made] == [query for query, _ in PAIRS]
    asked = made[0]["messages"][0]["content"]
    assert PAIRS[1][0] in asked and PAIRS[0][0] not in asked and "The query is like those of the examples." in asked
    assert [each["parent_id"] for each in made] == [same["id"], "", ""] and made[0]["model"] == "examples"


def test_a_query_of_the_users_about_a_held_out_document_is_no_lesson(run, tmp_path: Path) -> None:
    held_out = part(f"To begin with. {TEETH} That is all.", "Saws", split="held_out")
    made, [reject] = taught(run, [held_out, part(SHED, "Walls", document="d2")], **of_user(tmp_path))
    assert (reject["reason"], reject["text"]) == ("held_out", PAIRS[1][0]) and len(made) == 2


def test_other_lessons_do_not_mix_with_those_that_are_there(run) -> None:
    taught(run, [part(OIL, "Looking after old saws")])
    with pytest.raises(UserError, match="planned differently"):
        lessons.publish_lessons(run, lessons.prepare_lessons(run, grounded_recipe(seed=5)))
