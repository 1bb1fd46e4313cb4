"""Evaluation sets are read whole, and what is wrong with one is told by file, line and id."""

import json

import pytest

from speed_ray.errors import UserError
from speed_ray.evaluation import datasets


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
        (CORPUS, QUERIES, "q1\td9\t1\n", r"qrels/test\.tsv, line 2: 'd9' is not in corpus\.jsonl"),
        (CORPUS, QUERIES, "q9\td1\t1\n", r"qrels/test\.tsv, line 2: 'q9' is not in queries\.jsonl"),
        (CORPUS, QUERIES, "q1\td1\tyes\n", r"qrels/test\.tsv, line 2: 'yes' is not a whole number"),
        (CORPUS, QUERIES, "q1\td1\n", r"qrels/test\.tsv, line 2: 2 columns, and 3 are wanted"),
        (
            [{"_id": "d1", "text": " "}],
            QUERIES,
            "",
            r"corpus\.jsonl, line 1: document 'd1' has neither title nor text",
        ),
        ([{"id": "d1"}], QUERIES, "", r"corpus\.jsonl, line 1: the JSON object has no _id"),
        (CORPUS, QUERIES, "q1\td1\t0\n", r"qrels/test\.tsv names no relevant document"),
        (CORPUS, ["q1"], "", r"queries\.jsonl, line 1: this is not a JSON object"),
    ],
)
def test_a_beir_folder_that_is_none(beir, corpus, queries, qrels, told):
    with pytest.raises(UserError, match=told):
        datasets.read_beir(beir(corpus, queries, qrels))


def test_a_missing_file_is_named(tmp_path):
    missing = r"is no BEIR folder: it has no corpus\.jsonl, no queries\.jsonl, no qrels/test\.tsv$"
    with pytest.raises(UserError, match=missing):
        datasets.read_beir(tmp_path)
    with pytest.raises(UserError, match="there is no such file"):
        datasets.read_sts(tmp_path / "sts.csv")


def test_the_first_faults_of_a_file_are_named_and_all_are_counted(beir):
    with pytest.raises(UserError) as refused:
        datasets.read_beir(beir(CORPUS, QUERIES, "".join(f"q1\tnone-{n}\t1\n" for n in range(12))))
    said = str(refused.value).splitlines()
    assert [f"'none-{n}' is not in corpus.jsonl" in line for n, line in enumerate(said[:5])] == [True] * 5
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


@pytest.mark.parametrize(
    ("text", "read", "told"),
    [
        ("a,b,high\n", datasets.read_sts, "line 1: 'high' is not a score"),
        ("a,b,1\na,b,nan\n", datasets.read_sts, "line 2: 'nan' is not a score"),
        ("a,b,1\nc,d,1\n", datasets.read_sts, "has only the score 1: there is nothing to correlate with"),
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
