"""Scores that nobody gives, and judges that cannot be had, are refused in the recipe, by their keys."""

import pytest

from speed_ray import recipes
from speed_ray.errors import UserError
from speed_ray.recipes.needed_jobs import needed_jobs

REFERENCE = "curate.reference=package://minilm"
EMBEDDER = "embedder={model: package://minilm, loss: kl}"


def loaded(*overrides: str) -> recipes.Recipe:
    return recipes.load_recipe("miniature", overrides)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            [EMBEDDER],
            r"weight_by_score, learn scores that no stage gives: add `score: \{\}`",
        ),
        (["embedder.weight_by_score=true"], r"learn scores that no stage gives"),
        (["score.judges=[refrence]"], r"score: judges: there is no judge 'refrence' \(did you mean 'reference'\?\)"),
        (["score.judges=[]"], r"score\.judges: "),
        (["score.cross_encoders={bm25: a/b}"], r"score: cross_encoders: bm25 is the name of another judge"),
        (["score={cross_encoders: {mine: a/b}, judges: [bm25]}"], r"score: cross_encoders: mine is asked for nothing"),
        (["score.judges=[mixture]"], r"score\.judges: mixture judges by an embedder: name one as curate\.reference"),
        ([REFERENCE, "score.judge=mxture"], r"score\.judge: mxture scores no row \(did you mean 'mixture'\?\)"),
        ([REFERENCE, "score={}", EMBEDDER], r"embedder\.judge: the rows are scored by reference, bm25, mixture: name"),
        ([REFERENCE, "score={}", EMBEDDER, "embedder.judge=mine"], r"embedder\.judge: mine scores no row"),
        (["score.relabel=true"], r"score\.relabel seeks better passages in a corpus: name one as corpus\.source"),
        (["score={}", "embedder.stream=true"], r"score: rows that are streamed are not scored: set embedder\.stream"),
        (
            ["score.gates.relatednes=1.0"],
            r"score\.gates\.relatednes: there is no such key \(did you mean 'relatedness'",
        ),
    ],
)
def test_what_cannot_be_scored_is_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        loaded(*overrides)


def test_without_a_reference_the_judges_are_those_that_do_without() -> None:
    settings = loaded("score.cross_encoders={mine: a/b}").score
    assert settings is not None
    assert settings.judge_names(False) == ["bm25", "mine"] and settings.deciding_judge(False) == "bm25"
    assert settings.judge_names(True) == ["reference", "bm25", "mixture", "mine"]
    assert settings.deciding_judge(True) == "mixture"


def test_one_judge_need_not_be_named() -> None:
    assert loaded("score={}", EMBEDDER).embedder is not None


def test_a_run_that_was_frozen_with_such_a_loss_still_opens() -> None:
    tree = loaded("score={}", EMBEDDER).model_dump(mode="json") | {"score": None}
    assert recipes.validate_frozen(tree, "recipe.yaml").score is None


def test_a_recipe_that_scores_needs_the_job_and_the_one_before() -> None:
    assert needed_jobs(loaded("embedder=null", "score={}"))[-3:] == ["synthesize", "curate", "score"]
    assert needed_jobs(loaded("embedder=null"))[-1] == "synthesize"
