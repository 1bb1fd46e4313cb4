"""Check `import speed_ray`: names load late, examples in docstrings run, rows suit other tools."""

import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import speed_ray
from speed_ray import pipeline
from speed_ray.errors import UserError

DOCUMENTED = [
    *("speed_ray", "speed_ray.recipes"),
    *(f"speed_ray.notebook.{name}" for name in ("jobs", "opened_run", "shown_report")),
]
PUBLIC = [name for name in speed_ray.__all__ if name != "__version__"]


@pytest.fixture
def finished(make_job, tmp_path, monkeypatch):
    """A finished run at runs/first of the working directory: 4 topics, 460 examples, and no Ray."""
    job = make_job("runs/first", mix={"sts": 1, "retrieval": 1}).begin()
    job.half_done(46)
    recipe = job.recipe
    writing = pipeline.Synthesize(recipe)
    assert job.run.artifact("examples").publish(writing.plan(job.run))
    monkeypatch.chdir(tmp_path)
    return speed_ray.Run("runs/first")


def test_the_package_alone_loads_nothing():
    script = "import sys, speed_ray; print([name for name in sys.modules if name.startswith('speed_ray.')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there_and_described(name):
    assert getattr(speed_ray, name).__doc__ and name in dir(speed_ray)


def test_the_jobs_are_all_public_and_no_other_name_is(name="curat"):
    assert set(pipeline.JOBS) <= set(PUBLIC)
    with pytest.raises(AttributeError, match="no attribute 'curat'"):
        getattr(speed_ray, name)


@pytest.mark.parametrize("module", DOCUMENTED)
def test_the_examples_of_docstrings_run(finished, module):
    found = doctest.testmod(importlib.import_module(module))
    assert found.failed == 0 and found.attempted > 0


async def test_a_plan_is_made_while_a_loop_runs_as_in_a_notebook(finished):
    assert [stage.replies for stage in speed_ray.plan(finished.recipe(), "runs/first").stages] == ["done", "done"]
    made = speed_ray.plan("runs/first/recipe.yaml")
    assert [stage.calls for stage in made.stages] == [4, 460] and made.stages[0].replies == "known"


def test_a_finished_run_is_not_run_again(finished):
    recipe = finished.recipe()
    assert speed_ray.run(recipe, "runs/first", until="synthesize").table().num_rows == 460


def test_rows_are_the_same_in_every_form(finished):
    table = finished.table("examples")
    assert table.num_rows == 460
    streamed = finished.examples()
    assert [row["id"] for row in streamed] == table["id"].to_pylist()
    assert streamed.num_shards == 46  # so that workers share them
    assert streamed.to_pandas()["query"].tolist() == table.to_pandas()["query"].tolist()
    assert isinstance(next(iter(streamed))["negatives"], list)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("exampels", "did you mean 'examples'?"),
        ("curated_examples", "no finished curated_examples yet: run `speed-ray curate` first"),
    ],
)
def test_rows_that_are_not_there(finished, name, said):
    for read in (finished.table, finished.examples):
        with pytest.raises(UserError, match=said.replace("?", r"\?")):
            read(name)


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(UserError, match="is not a run"):
        speed_ray.Run(str(tmp_path)).examples()
    assert "is not a run" in speed_ray.Run(str(tmp_path))._repr_html_()


def test_an_artifact_without_a_record(make_job):
    job = make_job(generator={"engine": "simulated", "faults": {"malformed": 1.0}}, synthesize__examples=46)
    job = job.begin()
    with pytest.raises(UserError, match="has no finished examples"):
        speed_ray.Run(job.uri).table()


def test_a_run_shows_itself(finished):
    page = finished._repr_html_()
    assert "<td>examples</td><td>published</td><td>460</td><td>460</td><td>0</td><td>460</td>" in page


def test_a_hostile_name_is_shown_as_text(tmp_path):
    page = speed_ray.Run(str(tmp_path / "<script>alert(1)</script>"))._repr_html_()
    assert "<script>" not in page and "&lt;script&gt;" in page


def test_an_unknown_recipe_and_job(finished):
    with pytest.raises(UserError, match="did you mean 'miniature'"):
        speed_ray.run("minature", "runs/x")
    with pytest.raises(UserError, match="did you mean 'curate'"):
        speed_ray.run(yaml_of(finished), "runs/first", until="curat")


def yaml_of(run) -> str:
    """A recipe of the run's that goes on to an embedder."""
    path = Path(run.uri, "again.yaml")
    tree = yaml.safe_load(Path(run.uri, "recipe.yaml").read_text()) | {"embedder": {"model": "package://minilm"}}
    path.write_text(yaml.safe_dump(tree))
    return str(path)
