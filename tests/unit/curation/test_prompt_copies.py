"""What a model repeats of its prompt is told from what it says of its own."""

import numpy as np
import pytest

from speed_ray import kinds
from speed_ray.curation.prompt_copies import copied_shares, prompt_triples
from speed_ray.recipes.schema import Recipe
from tests.helpers.passages import grounded_recipe

OWN = "why do candles flicker when somebody opens the kitchen door"


def shares(recipe: Recipe, *rows: dict[str, str]) -> list[float]:
    return copied_shares(rows, prompt_triples(recipe), recipe.is_grounded)


def row(query: str, positive: str = "Moving air bends the flame until it goes out.", kind: str = "retrieval"):
    return {"kind": kind, "query": query, "positive": positive}


def test_an_example_of_a_prompt_is_copied_and_a_text_of_its_own_is_not() -> None:
    shown = kinds.load_grounded("retrieval").shots[0].lines["question"]
    assert shares(grounded_recipe(), row(shown), row(OWN)) == [1.0, 0.0]


def test_a_guideline_is_copied_whatever_form_it_is_written_for() -> None:
    said = "The query tells in the first person what the user is in the middle of"
    assert shares(grounded_recipe(), row(said)) == [1.0]


def test_the_users_own_examples_are_no_news(tmp_path) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text('{"query": "how far is the moon from the earth on average", "passage": "It is far."}\n')
    recipe = grounded_recipe(corpus={"source": "docs", "examples": str(own)})
    assert shares(recipe, row("How far is the moon from the earth, on average?")) == [1.0]


def test_a_passage_is_no_copy_of_the_prompt_that_shows_it() -> None:
    shot = kinds.load_grounded("retrieval").shots[0]
    assert shares(grounded_recipe(), row(OWN, positive=shot.passage)) == [0.0]


def test_a_text_of_few_words_may_be_like_one_of_a_prompt() -> None:
    assert shares(grounded_recipe(), row("slow sourdough proofing causes")) == [0.0]


@pytest.mark.parametrize("kind", kinds.kind_names())
def test_prompts_of_tasks_say_nothing_that_topics_bring(kind: str) -> None:
    recipe = Recipe.model_validate(
        {"topics": {"source": "t.txt"}, "teacher": {"engine": "scripted"}, "generator": {"engine": "scripted"},
         "mix": {kind: 1}}
    )  # fmt: skip
    said = kinds.load_kind(kind).brief
    assert shares(recipe, row(said, kind=kind), row(OWN, kind=kind)) == [1.0, 0.0]


def test_triples_are_sorted_and_each_there_once() -> None:
    triples = prompt_triples(grounded_recipe())
    assert len(triples) > 100 and (np.diff(triples.astype(object)) > 0).all()
