"""The evaluation of a run: every set scored once for every model, kept task by task, and shown side by side."""

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from speed_ray import pipeline, recipes
from speed_ray.console import status
from speed_ray.errors import Interrupted, UserError
from speed_ray.evaluation import datasets, eval_models, results, score
from speed_ray.evaluation.datasets import EvaluationTask
from speed_ray.evaluation.eval_models import EvalModel
from speed_ray.recipes.schema import Evaluate
from speed_ray.storage import fingerprint
from speed_ray.storage.run import Run
from speed_ray.storage.trained_models import Model
from speed_ray.training.contrastive import encoder
from tests.helpers.tiny_training import tiny_model


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny language model, and an embedder made of it."""
    folder = tmp_path_factory.mktemp("evaluate")
    tiny_model(folder / "base")
    encoder.load_encoder(folder / "base", "mean", max_length=64).save(str(folder / "embedder"))
    return folder


@pytest.fixture
def wanted(tmp_path):
    """One small set of each kind, as a recipe names them."""
    (tmp_path / "alike.csv").write_text("a lamp,a light,4\na lamp,two dogs,0\nwarm milk,hot milk,5\n")
    rows = [f"{word} {number},{word}" for number in range(9) for word in ("lamp", "dog", "milk")]
    (tmp_path / "kinds.csv").write_text("\n".join(rows) + "\n")
    beir = tmp_path / "beir"
    (beir / "qrels").mkdir(parents=True)
    texts = {"d1": "the lamp hums", "d2": "two dogs sleep", "d3": "hot milk"}
    write_jsonl(beir / "corpus.jsonl", [{"_id": name, "text": text} for name, text in texts.items()])
    write_jsonl(beir / "queries.jsonl", [{"_id": "q1", "text": "dogs"}, {"_id": "q2", "text": "nobody asked"}])
    (beir / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td2\t1\n")
    kinds = str(tmp_path / "kinds.csv")
    return {
        "sts": [str(tmp_path / "alike.csv")],
        "classification": [{"train": kinds, "test": kinds}],
        "retrieval": [str(beir)],
    }


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def job(base, wanted, tmp_path):
    """A run whose embedder is trained, and its recipe."""
    run = Run(str(tmp_path / "run"))
    Model(run, "embedder").publish(base / "embedder", {"rows": {"instructed": True}})
    return run, recipe_of(base, evaluate=wanted)


def recipe_of(base, pooling="mean", **settings):
    tree = {
        "topics": {"source": "topics.txt"},
        "teacher": {"engine": "scripted"},
        "generator": {"engine": "scripted"},
        "embedder": {"model": str(base / "base"), "pooling": pooling, "max_length": 64},
        **settings,
    }
    return recipes.validate(tree, "the test")


def planned(run, recipe):
    return eval_models.models_of(run, recipe), score.list_tasks(run, recipe)


def done(run, recipe):
    """Score everything in this process. Returns each model's main scores by set."""
    scored, tasks = planned(run, recipe)
    for each in score.missing_scores(run, scored, tasks, "cpu"):
        score.score_task(each)
    assert not score.missing_scores(run, scored, tasks, "cpu")
    kept = {subject.name: [results.read_result(run, subject, task) for task in tasks] for subject in scored}
    return {
        name: {each["name"]: each["scores"][datasets.MAIN_SCORES[each["kind"]]] for each in of_model if each}
        for name, of_model in kept.items()
    }


def test_every_model_is_scored_on_what_it_can_do(job):
    found = done(*job)
    everything = ["alike", "kinds", "beir"]
    assert [list(each) for each in (found["base"], found["embedder"], found["bm25"])] == [
        everything, everything, ["beir"],
    ]  # fmt: skip
    assert found["bm25"] == {"beir": 1.0}


def test_a_set_says_how_large_it_is_and_what_was_left_out(job):
    run, recipe = job
    done(run, recipe)
    scored, tasks = planned(run, recipe)
    of_set = {task.kind: results.read_result(run, scored[0], task)["facts"] for task in tasks}
    found = {name: count for name, count in of_set["retrieval"].items() if count}
    assert found == {"documents": 3, "queries": 1, "queries_without_answer": 1}
    assert of_set["classification"] == {"train": 27, "test": 27, "labels": 3, "empty_texts": 0}


def test_what_was_left_out_is_said_below_the_table_and_in_the_status(job):
    run, recipe = job
    run.freeze(recipe)
    done(run, recipe)
    scored, tasks = planned(run, recipe)
    console = Console(record=True, width=200)
    console.print(results.score_table(run, scored, tasks))
    below = " ".join(console.export_text().split())
    assert below.endswith("beir: 1 queries without a relevant document are left out")
    results.publish_scores(run, scored, tasks)
    said = status.score_lines(run)
    line = next(number for number, text in enumerate(said) if text.startswith("evaluation, beir: base "))
    assert said[line].endswith(" bm25 1.0000")
    assert said[line + 1] == "  1 queries without a relevant document are left out"
    run.store.put("evaluation/bm25.json", b"{")
    assert "bm25" not in "".join(status.score_lines(run)), "a damaged file does not end the command"


def test_what_is_scored_is_not_scored_again(job, wanted):
    run, recipe = job
    done(run, recipe)
    files = {path: path.stat().st_mtime_ns for path in Path(run.uri, "evaluation").rglob("*.json")}
    assert len(files) == 3 + 3 + 1
    done(run, recipe)
    assert {path: path.stat().st_mtime_ns for path in files} == files
    changed = Path(wanted["sts"][0])
    changed.write_text(changed.read_text() + "a door,a gate,4\n")
    assert [str(each) for each in score.missing_scores(run, *planned(run, recipe), "cpu")] == [
        "alike (base)", "alike (embedder)",
    ]  # fmt: skip


def test_a_change_of_the_scoring_code_scores_anew(job, monkeypatch):
    run, recipe = job
    done(run, recipe)
    read = fingerprint.module_source
    changed = "speed_ray.evaluation.metrics"
    monkeypatch.setattr(fingerprint, "module_source", lambda name: read(name) + "\nNEW = 1" * (name == changed))
    assert len(score.missing_scores(run, *planned(run, recipe), "cpu")) == 7


def test_a_damaged_result_is_named(job):
    run, recipe = job
    done(run, recipe)
    damaged = next(Path(run.uri, "evaluation").glob("*/beir-*.json"))
    damaged.write_bytes(b"{")
    with pytest.raises(Interrupted, match=f"{damaged.name} is damaged"):
        score.missing_scores(run, *planned(run, recipe), "cpu")


def test_the_instruction_goes_before_queries_alone(base, job):
    run, recipe = job
    model = eval_models.load_model(eval_models.models_of(run, recipe)[1], "cpu")
    plain, instructed = (eval_models.embed_with(model, told, "Find it") for told in (False, True))
    assert np.array_equal(instructed(["dogs"], "document"), plain(["dogs"], "document"))
    assert np.array_equal(instructed(["dogs"], "query"), plain(["Instruct: Find it\nQuery: dogs"], "query"))
    assert not np.array_equal(instructed(["dogs"], "query"), plain(["dogs"], "query"))


def test_a_base_of_sentence_transformers_is_asked_as_its_folder_says(base, tmp_path):
    model = encoder.load_encoder(base / "embedder")
    model.prompts = {"query": "search: ", "document": ""}
    embed = eval_models.embed_with(model, instructed=False, instruction="Find it")
    assert np.array_equal(embed(["dogs"], "query"), model.encode(["search: dogs"], prompt=""))
    assert np.array_equal(embed(["dogs"], "document"), model.encode(["dogs"], prompt=""))


def test_a_text_of_no_tokens_has_a_vector(base):
    model = encoder.load_encoder(base / "embedder")
    assert model.preprocess([""])["input_ids"].numel() == 0
    vectors = eval_models.embed_with(model, instructed=False, instruction="")(["", ""], "document")
    assert np.isfinite(vectors).all() and vectors.any()


def test_a_language_model_is_asked_as_its_embedder_will_be(job):
    run, recipe = job
    assert [each.instructed for each in eval_models.models_of(run, recipe)] == [True, True, False]


def test_a_recipe_names_an_instruction_or_none(base, wanted):
    path = wanted["sts"][0]
    entries = [path, {"path": path, "instruction": "Compare"}, {"path": path, "instruction": ""}]
    usual, own, none = datasets.local_tasks(Evaluate(sts=entries))
    told = [usual.instruction, own.instruction, none.instruction]
    assert told == ["Retrieve semantically similar text", "Compare", ""]
    assert len({usual.digest, own.digest, none.digest}) == 3


def test_sets_may_change_between_two_evaluations_of_a_run(base, job, wanted):
    run, recipe = job
    run.freeze(recipe)
    run.freeze(recipe_of(base, evaluate={"sts": wanted["sts"]}))


def test_before_training_there_is_nothing_to_score(base, wanted, tmp_path):
    with pytest.raises(UserError, match="embedder is not trained yet"):
        pipeline.evaluate(Run(str(tmp_path / "empty")), recipe_of(base, evaluate=wanted))
    assert not (tmp_path / "empty").exists()


def test_a_recipe_without_sets(base, job):
    with pytest.raises(UserError, match="evaluate: the recipe names no set"):
        pipeline.evaluate(job[0], recipe_of(base))


def test_a_recipe_without_an_embedder(job, wanted):
    tree = {"topics": {"source": "t"}, "teacher": {"engine": "scripted"}, "generator": {"engine": "scripted"}}
    with pytest.raises(UserError, match="embedder: this recipe trains none"):
        pipeline.evaluate(job[0], recipes.validate({**tree, "evaluate": wanted}, "the test"))


@pytest.mark.parametrize(
    ("evaluate", "told"),
    [
        ({"sts": [{"pth": "x"}]}, r"evaluate\.sts\.0\.pth: there is no such key \(did you mean 'path'\?\)"),
        ({"classification": ["x.csv"]}, r"evaluate\.classification\.0"),
        ({"sts": "x.csv"}, r"evaluate\.sts"),
    ],
)
def test_a_wrong_entry_is_named(base, evaluate, told):
    with pytest.raises(UserError, match=told):
        recipe_of(base, evaluate=evaluate)


@pytest.mark.slow
def test_the_job_scores_on_actors_and_shows_all_side_by_side(job, capsys):
    run, recipe = job
    pipeline.evaluate(run, recipe)
    shown = capsys.readouterr().out
    for words in ("base", "embedder", "bm25", "Spearman", "accuracy", "nDCG@10", "1.0000"):
        assert words in shown
    written = json.loads(run.store.get("evaluation/embedder.json"))
    assert [each["name"] for each in written["results"]] == ["alike", "kinds", "beir"]
    assert not score.missing_scores(run, *planned(run, recipe), "cpu")


def test_the_table_leaves_open_what_is_not_scored(job):
    run, recipe = job
    console = Console(record=True, width=100)
    console.print(results.score_table(run, *planned(run, recipe)))
    assert "alike" in console.export_text() and "0." not in console.export_text()


def test_the_table_ends_an_entry_of_many_tasks_with_their_mean(run):
    model = EvalModel("base", "0" * 32)
    tasks = [EvaluationTask("mteb", name, ("MTEB(eng, v2)",), None, name * 32) for name in "ab"]
    for task, value in zip(tasks, (0.5, 0.75), strict=True):
        results.write_result(run, model, task, {"scores": {"main_score": value}})
    assert cells(results.score_table(run, [model], tasks))[-1] == ["MTEB(eng, v2)", "mean of 2", "0.6250"]
    more = [*tasks, EvaluationTask("mteb", "c", ("MTEB(eng, v2)",), None, "c" * 32)]
    assert cells(results.score_table(run, [model], more))[-1] == ["MTEB(eng, v2)", "mean of 3", ""], (
        "one is not scored yet"
    )


def test_the_table_tells_how_sure_a_gain_over_the_base_is(run):
    models = [EvalModel(name, name * 8) for name in ("base", "embedder", "bm25")]
    task = EvaluationTask("retrieval", "faq", ("faq",), None, "f" * 32)
    for model, value in zip(models, (0.5, 0.75, 0.25), strict=True):
        by_query = dict.fromkeys("abc", value)
        results.write_result(run, model, task, {"scores": {"ndcg_at_10": value}, "by_query": by_query})
    gains = ["", "+0.2500 [+0.2500, +0.2500]", "-0.2500 [-0.2500, -0.2500]"]
    assert cells(results.score_table(run, models, [task]))[-1] == ["", "over base, 95%", *gains]


def cells(table):
    return [list(row) for row in zip(*(column.cells for column in table.columns), strict=True)]
