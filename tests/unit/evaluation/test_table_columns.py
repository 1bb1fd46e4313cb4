"""Columns are found by the names of a heading, whatever their order, and a heading is never taken for a row."""

import pytest

from speed_ray.errors import UserError
from speed_ray.evaluation import table_columns
from speed_ray.evaluation.table_columns import CLASSIFICATION, STS

LABELLED = [["lost", "card"], ["sold", "house"]]


@pytest.fixture
def rows(tmp_path):
    def read(text, columns, name="table.csv"):
        (tmp_path / name).write_text(text)
        return [row for _, row in table_columns.read_columns(tmp_path / name, columns)]

    return read


@pytest.mark.parametrize(
    "text",
    [
        "lost,card\nsold,house\n",
        "text,category\nlost,card\nsold,house\n",
        "sentence,label\nlost,card\nsold,house\n",
        "label,text\ncard,lost\nhouse,sold\n",
        "Label,Tweet\ncard,lost\nhouse,sold\n",
        "idx,text,label\n0,lost,card\n1,sold,house\n",
        "text,label,label_text\nlost,card,x\nsold,house,y\n",
        "\ufefftext,intent\nlost,card\nsold,house\n\n",
    ],
)
def test_labels_are_found_by_name(rows, text):
    assert rows(text, CLASSIFICATION) == LABELLED


@pytest.mark.parametrize(
    "text",
    [
        "a,b,1\n",
        "sentence1,sentence2,score\na,b,1\n",
        "score,sentence1,sentence2\n1,a,b\n",
        "sentence2,similarity_score,sentence1\nb,1,a\n",
        "id,genre,sentence1,sentence2,score\n0,x,a,b,1\n",
        "first,second,score\na,b,1\n",
    ],
)
def test_pairs_are_found_by_name(rows, text):
    assert rows(text, STS) == [["a", "b", "1"]]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("text,emotion\nlost,card\nsold,house\n", "line 1: 'text,emotion' looks like a heading of unknown names"),
        ("tweet,emotion\n" + "lost,card\nsold,house\n" * 2, "line 1: 'tweet,emotion' looks like a heading"),
        ("id,tweet,label\n1,lost,card\n", "line 1: the heading does not name each of text,label once"),
        ("text,label,label\nlost,card,x\n", "line 1: the heading does not name each of text,label once"),
        ("lost,card\nsold\n", "line 2: 1 columns, and 2 are wanted"),
        ("id,text,label\n1,lost,card\nsold,house\n", "line 3: 2 columns, and 3 are wanted"),
    ],
)
def test_what_cannot_be_told_is_refused(rows, text, told):
    with pytest.raises(UserError, match=told):
        rows(text, CLASSIFICATION)


def test_a_first_label_that_stands_alone_among_numbers_is_no_heading(rows):
    assert len(rows("a,7\n" + "b,1\nc,2\n" * 2, CLASSIFICATION)) == 5


def test_a_quote_in_a_tsv_is_a_letter_and_swallows_no_line(rows):
    text = '"We won\tWe lost\t1.0\nThe dog ran.\tA dog ran.\t4.5\nHe said "no"\tHe said no\t4\n'
    assert rows(text, STS, "sts.tsv") == [
        ['"We won', "We lost", "1.0"], ["The dog ran.", "A dog ran.", "4.5"], ['He said "no"', "He said no", "4"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('"He said ""no"""\tA\t1\n', r"line 1: .* is quoted, and a TSV has no quotes"),
        ('"A"\t"B"\t1\n"C"\t"D"\t2\n', "all of its texts have them"),
        ('"A\tcat"\tB\t1\n', "line 1: 4 columns, and 3 are wanted"),
    ],
)
def test_a_tsv_that_is_quoted_is_refused(rows, text, told):
    with pytest.raises(UserError, match=told):
        rows(text, STS, "sts.TSV")


def test_json_lines_are_no_table(rows):
    with pytest.raises(UserError, match=r"neither CSV nor TSV\. Save it as one of them, with the heading text,label"):
        rows('{"text": "a", "label": "b"}\n', CLASSIFICATION, "table.jsonl.gz")
