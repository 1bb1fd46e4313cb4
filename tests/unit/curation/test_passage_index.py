"""The index of a corpus's passages: found by id and by text, their texts read from disk."""

from pathlib import Path

import numpy as np
import pytest

from speed_ray.curation.passage_index import NOWHERE, PassageIndex
from speed_ray.curation.scan import hash_texts
from speed_ray.storage.run import PASSAGES
from speed_ray.text.rules import is_plain
from tests.helpers.grounded_run import example, passage, publish

ROWS = [passage(f"passage {number}, été", f"d{number // 2}", title="A title") for number in range(20)]
ROWS.append(passage("Passage  7, été", "another", name="a copy"))


@pytest.fixture
def index(run, tmp_path: Path) -> PassageIndex:
    publish(run, ROWS, [example("a query", ROWS[0])])
    return PassageIndex(run.artifact(PASSAGES), tmp_path)


def test_texts_are_read_with_their_titles(index: PassageIndex) -> None:
    assert [index.text(place) for place in (0, 19, 20)] == [
        "A title passage 0, été",
        "A title passage 19, été",
        "Passage  7, été",
    ]


def test_a_passage_is_found_by_its_id(index: PassageIndex) -> None:
    rows = [example("a query", ROWS[place]) for place in (3, 20, 0)]
    stranger = {**rows[0], "parent_id": "a task"}
    assert index.parents_of([*rows, stranger]).tolist() == [3, 20, 0, NOWHERE]


def test_a_passage_is_an_answer_where_it_is_the_positive(index: PassageIndex) -> None:
    titled, untitled, label = (example("a query", ROWS[3]) for _ in range(3))
    untitled["positive"], label["positive"] = ROWS[3]["text"], "sports"
    rows = [titled, untitled, label]
    assert index.answers_of(rows, index.parents_of(rows)).tolist() == [3, 3, NOWHERE]


def test_copies_of_a_text_are_found_in_other_case_and_spacing(index: PassageIndex) -> None:
    texts = hash_texts([is_plain(text) for text in ("passage 7, été", "no such text", "passage 8, été")])
    assert sorted(map(tuple, index.copies_of(texts))) == [(0, 7), (0, 20), (2, 8)]


def test_documents_tell_passages_apart(index: PassageIndex) -> None:
    assert index.documents[0] == index.documents[1] != index.documents[2]
    assert not index.held_out.any() and len(np.unique(index.documents)) == 11
