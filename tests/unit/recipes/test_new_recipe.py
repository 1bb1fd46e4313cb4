"""`speed-ray init`: whatever the answers, the recipe loads, is whole, and writes over nothing."""

import itertools

import pytest

from speed_ray.console import init_recipe
from speed_ray.errors import UserError
from speed_ray.recipes import load_recipe
from speed_ray.recipes.needed_jobs import needed_jobs
from speed_ray.recipes.new_recipe import Answers, render_recipe, write_recipe

ENDPOINT = {"model": "some-model", "base_url": "https://host/v1", "api_key_env": "SOME_KEY"}
ALL = [
    Answers(origin, "my_source", gpu, teacher, **(ENDPOINT if teacher == "endpoint" else {}))
    for origin, gpu, teacher in itertools.product(("topics", "documents"), (0, 16, 24, 80), ("endpoint", "local"))
    if (origin, gpu, teacher) != ("topics", 0, "local")
]


@pytest.mark.parametrize("answers", ALL, ids=lambda each: f"{each.origin}-{each.gpu}-{each.teacher}")
def test_every_recipe_loads_and_goes_on_to_a_scored_embedder(tmp_path, answers):
    write_recipe(answers, tmp_path / "recipe.yaml")
    text = (tmp_path / "recipe.yaml").read_text()
    recipe = load_recipe(str(tmp_path / "recipe.yaml"))
    assert needed_jobs(recipe)[-2:] == ["train_embedder", "evaluate"]
    asked = {config.engine for config in (recipe.teacher, recipe.generator)}
    assert ("openai" in asked) == (answers.teacher == "endpoint")
    uses_gpu = recipe.embedder.workers.num_gpus + recipe.synthesize.pool.num_gpus
    assert bool(uses_gpu) == bool(answers.gpu)
    assert "{{" not in text and "{%" not in text and "\n\n\n" not in text
    assert sum("#" in line for line in text.splitlines()) > 15, "it is to be commented"


@pytest.mark.parametrize(
    "source", ["a b: c # d", "'quoted'", '"{{ x }}"', "übung/日本", "no", "12", "- a", "*x", "s3://bucket/a?b", "[x]"]
)
def test_what_is_typed_is_what_the_recipe_says(tmp_path, source):
    write_recipe(Answers("documents", source, 0, "endpoint", source, "https://h/v1", None), tmp_path / "r.yaml")
    recipe = load_recipe(str(tmp_path / "r.yaml"))
    assert recipe.corpus.source == source == recipe.generator.model and recipe.generator.api_key_env is None


def test_a_file_is_never_written_over(tmp_path, said):
    file = tmp_path / "recipe.yaml"
    file.write_text("mine")
    code, words = said("init", str(file), "--from", "documents")  # before anything is asked
    assert code == 2 and "is there already" in words and file.read_text() == "mine"
    (tmp_path / "link").symlink_to("/no/such/file")
    with pytest.raises(UserError, match="is there already"):
        write_recipe(ALL[0], tmp_path / "link")


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_recipe(ALL[0], tmp_path / "file" / "recipe.yaml")


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (Answers("topics", "t.txt", 0, "local"), "topics need a teacher that follows instructions"),
        (Answers("topics", "t.txt", 0, "endpoint"), "--model and --base-url"),
        (Answers("documents", " ", 0, "local"), "--source: name the documents"),
        (Answers("documents", "bad\x00", 0, "local"), "corpus.source holds a zero character"),
    ],
)
def test_answers_that_do_not_fit_write_nothing(tmp_path, answers, said):
    with pytest.raises(UserError, match=said):
        write_recipe(answers, tmp_path / "r.yaml")
    assert not list(tmp_path.iterdir())


def test_the_number_of_examples_is_kept():
    text = render_recipe(Answers("topics", "t", 24, "endpoint", **ENDPOINT, examples=400), "r.yaml")
    assert "examples: 400" in text and "examples: 100  # the teacher's" in text


def test_options_alone_will_do(tmp_path, said):
    file = tmp_path / "new" / "recipe.yaml"
    code, words = said("init", str(file), "--from=documents", "--source=d", "--gpu=0", "--teacher=local")
    assert code == 0 and f"doctor --recipe {file}" in words and file.is_file()


def test_a_missing_option_is_named_where_nobody_can_be_asked(tmp_path, said, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    code, words = said("init", str(tmp_path / "r.yaml"), "--from=topics", "--source=t", "--gpu=0")
    assert code == 2 and "--teacher is missing" in words and not list(tmp_path.iterdir())


def test_questions_are_asked_until_they_are_answered(monkeypatch):
    typed = iter(["papers", "documents", "my docs", "many", "24", "endpoint", "m", "https://h/v1", "-"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr(init_recipe.typer, "prompt", lambda *_, **__: next(typed))
    found = init_recipe.complete_answers(None, None, None, None, None, None, None, None)
    assert found == Answers("documents", "my docs", 24, "endpoint", "m", "https://h/v1", None)
