"""An endpoint's key is wanted by the jobs that ask that endpoint, before they spend anything, and by no other."""

import pytest

from speed_ray import pipeline, recipes
from speed_ray.errors import UserError
from speed_ray.executor.preflight import check_engine, check_recipe
from speed_ray.recipes.schema import Recipe
from speed_ray.stages.brainstorm import Brainstorm
from speed_ray.stages.synthesize import Synthesize
from tests.helpers.passages import grounded_recipe
from tests.helpers.tiny_training import tiny_model

MISSING = "{}.api_key_env names the environment variable SOME_KEY, which is not set"


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)


def recipe_with_endpoint(role: str) -> Recipe:
    endpoint = "{engine: openai, model: m, base_url: 'http://localhost/v1', api_key_env: SOME_KEY}"
    other = {"teacher": "generator", "generator": "teacher"}[role]
    return recipes.load_recipe("miniature", [f"{role}={endpoint}", f"{other}={{engine: simulated}}"])


@pytest.mark.parametrize("stage", [Brainstorm, Synthesize])
def test_a_stage_wants_the_key_of_the_engine_that_it_asks(stage, monkeypatch):
    for role in ("teacher", "generator"):
        asking = stage(recipe_with_endpoint(role))
        if role != stage.role:
            check_engine(asking, [])
            continue
        with pytest.raises(UserError, match=MISSING.format(role)):
            check_engine(asking, [])
        monkeypatch.setenv("SOME_KEY", "secret")
        check_engine(asking, [])
        monkeypatch.delenv("SOME_KEY")


def test_the_first_job_wants_the_teachers_key_before_the_recipe_is_frozen(run):
    with pytest.raises(UserError, match=MISSING.format("teacher")):
        pipeline.brainstorm(run, recipe_with_endpoint("teacher"))
    assert run.store.names("") == []


def test_a_brainstorm_that_is_done_wants_no_key(begin_alignment, monkeypatch):
    """`speed-ray run` goes through it again, perhaps on a machine that trains and has no key."""
    made = begin_alignment()
    engine = recipe_with_endpoint("teacher").teacher
    asked = []
    monkeypatch.setattr(pipeline, "_run_stage", lambda run, stage: asked.append(stage.name))
    monkeypatch.setattr(made.run, "freeze", lambda recipe: None)
    pipeline.brainstorm(made.run, made.recipe.model_copy(update={"teacher": engine}))
    assert asked == ["proposed_tasks"]


def test_the_key_itself_is_in_no_recipe(monkeypatch):
    monkeypatch.setenv("SOME_KEY", "secret")
    assert "secret" not in recipes.dump_yaml(recipe_with_endpoint("teacher"))


@pytest.mark.parametrize("arguments", [{}, {"max_model_len": 3_000}])
def test_passages_longer_than_the_window_are_refused_before_a_document_is_read(arguments, tmp_path):
    model = str(tiny_model(tmp_path / "model", window=4_096))
    generator = {"engine": "vllm", "model": model, "completion": True, "engine_kwargs": arguments}
    recipe = grounded_recipe(generator=generator, corpus={"source": "docs", "tokens": 2_000})
    with pytest.raises(
        UserError, match=r"cannot hold the prompts of examples: of 8 measured, 8 do not fit"
    ) as refused:
        check_recipe(recipe, Synthesize(recipe).shortest_requests())
    assert "or lower corpus.tokens (now 2000)" in str(refused.value)
