"""A recipe of documents that aligns its writer: who teaches and judges by default, and what does not fit."""

import pytest

from speed_ray import recipes
from speed_ray.errors import UserError
from speed_ray.recipes.needed_jobs import needed_jobs
from speed_ray.recipes.plain_yaml import parse_yaml
from tests.helpers.passages import grounded_recipe

JUNIOR, SENIOR = ({"synthesize": {"generator": name}} for name in ("junior", "senior"))
REFERENCE = {"curate": {"reference": "package://minilm"}}
TEACHER = {"teacher": {"engine": "scripted"}}
OWN = {"corpus": {"source": "docs", "examples": "mine.jsonl"}}


@pytest.mark.parametrize(
    ("keys", "lessons"),
    [
        ({}, "corpus"),
        (OWN, "examples"),
        (TEACHER, "teacher"),
        (TEACHER | {"draft": {"lessons": "corpus"}}, "corpus"),
        (OWN | {"draft": {"lessons": "corpus", "examples": 9}}, "corpus"),
    ],
)
def test_lessons_are_those_at_hand_unless_it_is_said_whose(keys, lessons):
    recipe = grounded_recipe(**JUNIOR, **keys)
    assert (recipe.draft.lessons, recipe.judge.engine) == (lessons, "scores")
    frozen = recipes.dump_yaml(recipe)
    assert recipes.validate_frozen(parse_yaml(frozen.encode(), "recipe.yaml"), "recipe.yaml") == recipe


def test_topics_keep_their_teacher():
    recipe = recipes.load_recipe("miniature")
    assert (recipe.draft.lessons, recipe.judge.engine) == ("teacher", "teacher")


@pytest.mark.parametrize(
    ("keys", "jobs"),
    [
        ({}, ["read_documents", "synthesize"]),
        (JUNIOR, ["read_documents", "align_junior", "synthesize"]),
        (SENIOR | REFERENCE, ["read_documents", "align_junior", "align_senior", "synthesize"]),
    ],
)
def test_its_jobs_are_those_of_documents_and_of_the_alignment(keys, jobs):
    assert needed_jobs(grounded_recipe(**keys)) == jobs


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (SENIOR, "judge.engine: scores are by a reference and BM25: name an embedder as curate.reference"),
        (SENIOR | REFERENCE | {"judge": {"engine": "teacher"}}, "judge.engine: .* set it to scores"),
        (JUNIOR | {"draft": {"lessons": "examples"}}, "draft.lessons: examples are those of corpus.examples"),
        (JUNIOR | {"mix": {"retrieval": 1, "sts": 1}}, "draft.lessons: sts writes no query that its passage answers"),
        (
            SENIOR | REFERENCE | TEACHER | {"mix": {"classification": 1}},
            "judge.engine: classification writes no query",
        ),
        (
            {"topics": {"source": "t"}, "judge": {"engine": "scores"}},
            "judge.engine: scores is for recipes of documents",
        ),
        (
            {"topics": {"source": "t"}, "draft": {"lessons": "corpus"}},
            "draft.lessons: corpus is for recipes of documents",
        ),
        ({"draft": {"lessons": "corpse"}}, "draft.lessons: Input should be 'teacher', 'corpus' or 'examples'"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_key(keys, said):
    with pytest.raises(UserError, match=said):
        grounded_recipe(**keys)


def test_a_teacher_may_still_give_lessons_of_any_kind():
    grounded_recipe(**JUNIOR, **TEACHER, mix={"retrieval": 1, "sts": 1, "classification": 1})
