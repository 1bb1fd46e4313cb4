"""Qrels and ids are read as they are found: TREC's columns, spaces, headings in any order, scores with a point."""

import json

import pytest

from speed_ray.errors import UserError
from speed_ray.text import beir


@pytest.fixture
def judged(tmp_path):
    def read(qrels):
        path = tmp_path / "test.tsv"
        path.write_text(qrels)
        return [judgement[1:] for judgement in beir.read_judgements(path)]

    return read


@pytest.mark.parametrize(
    "qrels",
    [
        "q1\td1\t2\nq2\td2\t0\n",
        "query-id\tcorpus-id\tscore\nq1\td1\t2\nq2\td2\t0\n",
        "q1\td1\t2.0\nq2\td2\t0\n",
        "q1 0 d1 2\nq2 0 d2 0\n",
        "q1\t0\td1\t2\nq2\t0\td2\t0\n",
        "q1 d1 2\r\nq2  d2  0\r\n\r\n",
        "corpus_id\tquery_id\tscore\nd1\tq1\t2\nd2\tq2\t0\n",
        "qid\titer\tdocno\trel\nq1\t0\td1\t2\nq2\t0\td2\t0\n",
        "who\twhat\thow much\nq1\td1\t2\nq2\td2\t0\n",
        "\ufeffq1\td1\t2\n\nq2\td2\t0\n\n",
    ],
)
def test_all_forms_of_qrels_say_the_same(judged, qrels):
    assert judged(qrels) == [("q1", "d1", 2), ("q2", "d2", 0)]


def test_ids_with_spaces_stand_between_tabs(judged):
    assert judged("q 1\td 1 a\t1\n") == [("q 1", "d 1 a", 1)]


@pytest.mark.parametrize(
    ("qrels", "told"),
    [
        ("q1\td1\t0.5\n", "line 1: '0.5' is not a whole number"),
        ("q1\td1\t9223372036854775808\n", "line 1: .* is not a whole number of at most nine digits"),
        ("q1 d1 1\nq1 d1\n", r"line 2: 2 columns, and 3 are wanted \(or 4, as in TREC\)"),
        ("q1 Q0 d1 1 0.5 run\n", "line 1: 6 columns, and 3 are wanted"),
        ("query-id\tcorpus-id\tscore\nq1\td1\n", "line 2: 2 columns"),
    ],
)
def test_what_is_no_judgement_is_refused_by_line(judged, qrels, told):
    with pytest.raises(UserError, match=told):
        judged(qrels)


def test_one_document_is_not_judged_in_two_ways(tmp_path):
    path = tmp_path / "test.tsv"
    path.write_text("q1\td1\t1\nq1\td1\t1\nq1\td1\t0\n")
    with pytest.raises(UserError, match="line 3: 'd1' has another grade for 'q1' already"):
        beir.read_relevant(path, {"q1"}, {"d1": ""})


@pytest.fixture
def texts(tmp_path):
    def read(*rows):
        path = tmp_path / "queries.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return beir.read_texts(path, "text")

    return read


def test_an_id_is_text_whatever_it_is_called(texts):
    assert texts({"_id": 7, "text": "a"}, {"id": "8", "text": "b"}) == {"7": "a", "8": "b"}


def test_two_texts_have_no_id_in_common(texts):
    assert texts({"_id": "1", "text": "a"}, {"_id": 1, "text": "a"}) == {"1": "a"}
    with pytest.raises(UserError, match=r"queries\.jsonl, line 2: '1' is the id of another text already"):
        texts({"_id": "1", "text": "a"}, {"_id": 1, "text": "b"})


@pytest.mark.parametrize("given", [None, "", 1.0, True, ["1"]])
def test_what_is_no_id_is_refused(texts, given):
    with pytest.raises(UserError, match=r"line 1: .*_id"):
        texts({"_id": given, "text": "a"})


@pytest.mark.parametrize("row", [{"_id": "1", "text": ["a"]}, {"_id": "1", "query": "a"}])
def test_a_text_is_neither_a_list_nor_missing(texts, row):
    with pytest.raises(UserError, match=r"line 1: '1' has"):
        texts(row)


def test_an_empty_cell_of_pandas_is_no_text(tmp_path):
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d1", "title": NaN, "text": "words"}\n')
    assert beir.read_texts(tmp_path / "corpus.jsonl", "title", "text") == {"d1": "words"}
