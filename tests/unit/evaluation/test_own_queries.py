"""A run of documents is scored on the judged queries of its corpus and on held-out queries, without being told."""

import json

import pytest

from speed_ray import recipes
from speed_ray.evaluation import datasets, own_queries
from speed_ray.records import CURATED, PASSAGE
from speed_ray.stages import driver_stage
from speed_ray.storage.run import CURATED_EXAMPLES, PASSAGES, Run
from speed_ray.storage.shard_plan import Plan


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "corpus"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text(json.dumps({"_id": "d1", "title": "Lamps", "text": "A lamp hums."}) + "\n")
    (folder / "queries.jsonl").write_text(json.dumps({"_id": "q1", "text": "why does it hum"}) + "\n")
    (folder / "qrels/test.tsv").write_text("q1\td1\t1\n")
    return folder


def recipe_of(corpus, **settings):
    tree = {"corpus": {"source": str(corpus)}, "generator": {"engine": "scripted"}, **settings}
    return recipes.validate(tree, "the test")


def publish(run, name, schema, rows):
    plan = Plan(name, len(rows), 8, identity={})
    results = (driver_stage.RowResult(row["id"], row, None) for row in rows)
    driver_stage.publish_rows(run.artifact(name), plan, schema, results)


@pytest.fixture
def run(tmp_path):
    """A run with two passages, and a query about each, of which one is held out."""
    run = Run(str(tmp_path / "run"))
    passage = {"parent_id": "", "document_id": "d", "headings": "", "start": 0, "end": 9, "tokens": 3, "digest": ""}
    passages = [
        {"id": "p1", "title": "Lamps", "text": "A lamp hums.", "split": "train", **passage},
        {"id": "p2", "title": "", "text": "Dogs sleep.", "split": "held_out", **passage},
    ]
    example = {
        "kind": "retrieval",
        "topic": "",
        "language": "English",
        "instruction": "",
        "negatives": [],
        "model": "",
    }
    examples = [
        {"id": f"e{row['id']}", "row_id": f"e{row['id']}", "parent_id": row["id"], "query": row["text"][:5],
         "positive": row["text"], "split": row["split"], **example}
        for row in passages
    ]  # fmt: skip
    publish(run, PASSAGES, PASSAGE, passages)
    publish(run, CURATED_EXAMPLES, CURATED, examples)
    return run


def test_the_judged_queries_of_the_corpus_are_a_task(corpus, tmp_path):
    [task] = own_queries.own_tasks(Run(str(tmp_path / "none")), recipe_of(corpus))
    assert (task.name, task.sources) == ("corpus", (str(corpus),))


def test_a_corpus_that_the_recipe_scores_itself_is_no_second_task(corpus, tmp_path):
    recipe = recipe_of(corpus, evaluate={"retrieval": [str(corpus)]})
    assert own_queries.own_tasks(Run(str(tmp_path / "none")), recipe) == []


def test_held_out_queries_look_for_their_passage_among_all(tmp_path, run):
    [task] = own_queries.own_tasks(run, recipe_of(tmp_path / "texts"))
    found = datasets.load_dataset("retrieval", task.sources)
    assert task.name == "held-out queries"
    assert found.documents == {"p1": "Lamps A lamp hums.", "p2": "Dogs sleep."}
    assert (found.queries, found.relevant) == ({"ep2": "Dogs "}, {"ep2": {"p2": 1}})


def test_a_run_of_topics_has_no_task_of_its_own(corpus, run):
    recipe = recipe_of(corpus, topics={"source": "topics.txt"}, teacher={"engine": "scripted"})
    assert own_queries.own_tasks(run, recipe) == []
