"""Evaluation sets are read whole, and what is wrong with one is told by file, line and id."""

import gzip
import json

import pytest

from speed_ray.errors import UserError
from speed_ray.evaluation import datasets
from speed_ray.recipes.schema import Evaluate
from tests.helpers.paths import SHARED


@pytest.fixture
def beir(tmp_path):
    def write(corpus, queries, qrels):
        (tmp_path / "qrels").mkdir()
        for name, rows in (("corpus", corpus), ("queries", queries)):
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (tmp_path / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\n" + qrels)
        return tmp_path

    return write


CORPUS = [{"_id": "d1", "title": "Lamps", "text": "They hum."}, {"_id": "d2", "text": "No title."}]
QUERIES = [{"_id": "q1", "text": "lamp"}, {"_id": "q2", "text": "table"}, {"_id": "q3", "text": "door"}]


def test_a_beir_folder(beir):
    read = datasets.read_beir(beir(CORPUS, QUERIES, "q1\td1\t2\nq1\td2\t0\nq2\td2\t0\n"))
    assert read.documents == {"d1": "Lamps They hum.", "d2": "No title."}
    assert read.queries == {"q1": "lamp"} and read.relevant == {"q1": {"d1": 2, "d2": 0}}
    assert read.unanswered == 2, "one has no judgement, one no relevant document"


def test_ids_may_be_numbers(beir):
    read = datasets.read_beir(beir([{"_id": 7, "text": "lamp"}], [{"_id": 1, "text": 5}], "1\t7\t1\n"))
    assert read == datasets.RetrievalSet({"7": "lamp"}, {"1": "5"}, {"1": {"7": 1}}, 0)


@pytest.mark.parametrize(
    ("corpus", "queries", "qrels", "told"),
    [
        (CORPUS, QUERIES, "q1\td9\t1\n", r"qrels/test\.tsv names no document that is in corpus\.jsonl"),
        (CORPUS, QUERIES, "q9\td1\t1\n", r"qrels/test\.tsv, line 2: 'q9' is not in queries\.jsonl"),
        (CORPUS, QUERIES, "q1\td1\tyes\n", r"qrels/test\.tsv, line 2: 'yes' is not a whole number"),
        (CORPUS, QUERIES, "q1\td1\n", r"qrels/test\.tsv, line 2: 2 columns, and 3 are wanted"),
        ([{"_id": "d1", "text": " "}], QUERIES, "", r"corpus\.jsonl holds no text"),
        ([{"_id": "d1", "body": "lamp"}], QUERIES, "", r"corpus\.jsonl, line 1: 'd1' has no title and no text"),
        (CORPUS, [{"_id": "q1", "query": "lamp"}], "", r"queries\.jsonl, line 1: 'q1' has no text"),
        ([{"name": "d1"}], QUERIES, "", r"corpus\.jsonl, line 1: the JSON object has no _id"),
        (CORPUS, QUERIES, "q1\td1\t0\n", r"qrels/test\.tsv names no relevant document"),
        (CORPUS, ["q1"], "", r"queries\.jsonl, line 1: this is not a JSON object"),
    ],
)
def test_a_beir_folder_that_is_none(beir, corpus, queries, qrels, told):
    with pytest.raises(UserError, match=told):
        datasets.read_beir(beir(corpus, queries, qrels))


def test_judged_documents_that_the_corpus_lacks_count_as_not_found(beir):
    read = datasets.read_beir(beir(CORPUS, QUERIES, "q1\td9\t1\nq1\td1\t1\nq2\td9\t1\n"))
    assert read.relevant == {"q1": {"d9": 1, "d1": 1}, "q2": {"d9": 1}}
    facts = datasets.count_rows(read)
    assert facts["judged_documents_missing"] == 1
    assert "1 judged documents are not in the corpus and count as not found" in datasets.describe_faults(facts)


def test_documents_without_a_text_stay_and_are_counted(beir):
    read = datasets.read_beir(beir([*CORPUS, {"_id": "d3", "title": "", "text": None}], QUERIES, "q1\td1\t1\n"))
    assert read.documents["d3"] == "" and datasets.count_rows(read)["empty_documents"] == 1
    assert "1 documents have no text" in datasets.describe_faults(datasets.count_rows(read))


def test_queries_that_do_not_find_their_own_id_are_counted(beir):
    corpus = [{"_id": name, "text": name} for name in ("q1", "q2", "d1")]
    read = datasets.read_beir(beir(corpus, QUERIES, "q1\tq1\t1\nq2\td1\t1\nq2\tq2\t0\nq3\td1\t1\n"))
    assert [read.hidden_from(query) for query in ("q1", "q2", "q3")] == [None, "q2", None]
    assert datasets.count_rows(read)["own_documents_left_out"] == 1


def test_a_missing_file_is_named(tmp_path):
    missing = r"is no BEIR folder: it has no corpus\.jsonl, no queries\.jsonl, no qrels/test\.tsv$"
    with pytest.raises(UserError, match=missing):
        datasets.read_beir(tmp_path)
    with pytest.raises(UserError, match="there is no such file"):
        datasets.read_sts(tmp_path / "sts.csv")


def test_the_first_faults_of_a_file_are_named_and_all_are_counted(beir):
    with pytest.raises(UserError) as refused:
        datasets.read_beir(beir(CORPUS, QUERIES, "".join(f"none-{n}\td1\t1\n" for n in range(12))))
    said = str(refused.value).splitlines()
    assert [f"'none-{n}' is not in queries.jsonl" in line for n, line in enumerate(said[:5])] == [True] * 5
    assert said[5:] == ["and 7 more"]


def test_a_corpus_that_is_not_utf_8(beir):
    folder = beir(CORPUS, QUERIES, "q1\td1\t1\n")
    (folder / "corpus.jsonl").write_bytes(b'{"_id": "d1", "text": "\xff"}\n')
    with pytest.raises(UserError, match=r"corpus\.jsonl, line 1: this is not JSON in UTF-8"):
        datasets.read_beir(folder)


def test_tables(tmp_path):
    (tmp_path / "sts.csv").write_text('"A lamp, lit",A light,4.5\nA lamp,A dog,0\n')
    assert datasets.read_sts(tmp_path / "sts.csv") == datasets.StsSet(
        ["A lamp, lit", "A lamp"], ["A light", "A dog"], [4.5, 0]
    )
    (tmp_path / "topics.tsv").write_text("text\tcategory\nlamp\thome\ndog\tanimal\n")
    assert datasets.read_labelled(tmp_path / "topics.tsv") == datasets.LabelledSet(["lamp", "dog"], ["home", "animal"])


def test_a_set_may_be_gzipped(tmp_path, beir):
    folder = beir(CORPUS, QUERIES, "q1\td1\t1\n")
    plain = datasets.read_beir(folder)
    for path in (folder / "corpus.jsonl", folder / "queries.jsonl", folder / "qrels/test.tsv"):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert datasets.read_beir(folder) == plain
    (tmp_path / "sts.csv.gz").write_bytes(gzip.compress(b"a,b,1\nc,d,2\n"))
    assert datasets.read_sts(tmp_path / "sts.csv.gz").scores == [1, 2]
    [task] = datasets.local_tasks(Evaluate(sts=[str(tmp_path / "sts.csv.gz")]))
    assert task.name == "sts"


def test_blank_lines_and_a_byte_order_mark_are_passed_over(beir):
    folder = beir(CORPUS, QUERIES, "q1\td1\t1\n")
    plain = datasets.read_beir(folder)
    for path in (folder / "corpus.jsonl", folder / "queries.jsonl", folder / "qrels/test.tsv"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b"\n  \n")
    assert datasets.read_beir(folder) == plain


def test_labels_of_the_test_that_training_has_not_are_refused(tmp_path):
    (tmp_path / "train.csv").write_text("lamp,home\ndog,animal\n")
    (tmp_path / "test.csv").write_text("table,home\ncat,1\n")
    with pytest.raises(UserError, match=r"test\.csv, line 2: no row of train has the label '1'"):
        datasets.load_dataset("classification", (str(tmp_path / "train.csv"), str(tmp_path / "test.csv")))


def test_a_row_without_a_label_is_refused(tmp_path):
    (tmp_path / "table.csv").write_text("text,label\nlamp,home\ndog,\ncat, \nbird,animal\n")
    with pytest.raises(UserError, match=r"table\.csv, line 3: there is no label\n.*line 4: there is no label$"):
        datasets.read_labelled(tmp_path / "table.csv")


def test_empty_texts_of_a_table_are_counted(tmp_path):
    (tmp_path / "sts.csv").write_text("a,,1\nb,c,2\n")
    assert datasets.count_rows(datasets.read_sts(tmp_path / "sts.csv")) == {"pairs": 2, "empty_texts": 1}


def test_nothing_is_said_of_a_set_that_is_whole(beir):
    whole = datasets.read_beir(beir(CORPUS, QUERIES[:1], "q1\td1\t1\n"))
    assert datasets.describe_faults(datasets.count_rows(whole)) == []


@pytest.mark.parametrize("name", ["cisi", "stsb-en-dev.csv", "banking77-test.csv"])
def test_real_sets_are_read_whole(name):
    path = SHARED / "data" / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    kind = {"cisi": "retrieval", "stsb-en-dev.csv": "sts"}.get(name, "classification")
    facts = datasets.count_rows(datasets.load_dataset(kind, (str(path), str(path))))
    assert facts == {
        "cisi": {
            "documents": 1460, "queries": 76, "queries_without_answer": 0, "own_documents_left_out": 69,
            "judged_documents_missing": 0, "empty_documents": 0, "empty_queries": 0,
        },
        "stsb-en-dev.csv": {"pairs": 1500, "empty_texts": 0},
        "banking77-test.csv": {"train": 3080, "test": 3080, "labels": 77, "empty_texts": 0},
    }[name]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "read", "told"),
    [
        ("a,b,high\n", datasets.read_sts, "line 1: 'high' is not a score"),
        ("a,b,1\na,b,1_0\n", datasets.read_sts, "line 2: '1_0' is not a score"),
        ("a,b,1\na,b,nan\n", datasets.read_sts, "line 2: 'nan' is not a score"),
        ("a,b,1\nc,d,1\n", datasets.read_sts, "has only the score 1: there is nothing to correlate with"),
        ('"a,b,1\nc",d,2\ne,f,3\n', datasets.read_sts, "line 2: a sentence ends on another line than it begins"),
        ("a,b\n", datasets.read_sts, "line 1: 2 columns, and 3 are wanted"),
        ("text,label\n", datasets.read_labelled, "is empty"),
        ("lamp,home\ntable,home\n", datasets.read_labelled, "has only the label 'home'"),
    ],
)
def test_tables_that_are_none(tmp_path, text, read, told):
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(UserError, match=told):
        read(tmp_path / "table.csv")


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "table.csv").write_bytes(b"lamp,home\n\xff\xfe,x\n")
    with pytest.raises(UserError, match=r"table\.csv, after line"):
        datasets.read_labelled(tmp_path / "table.csv")
