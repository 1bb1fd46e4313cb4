"""Evaluation sets are guarded in all the forms in which evaluation reads them."""

import gzip
import json

import pytest

from speed_ray.curation import contamination
from speed_ray.errors import UserError
from speed_ray.text import token_hashes

DOCUMENT = "A card that was lost can be blocked at once in the app under Settings and Security."
OTHER = "Another document of this corpus that nobody has judged in any of its qrels."
QRELS = "query-id\tcorpus-id\tscore\n1\t101\t1\n"


@pytest.fixture
def guards(tmp_path):
    """Write a BEIR folder and test which of two documents are guarded."""

    def read(key="_id", number=str, qrels=QRELS, mark=b"", end=b"", gz=False):
        (tmp_path / "qrels").mkdir()
        corpus = [{key: number(101), "title": "", "text": DOCUMENT}, {key: number(102), "title": "", "text": OTHER}]
        lines = "".join(json.dumps(row) + "\n" for row in corpus)
        queries = json.dumps({key: number(1), "text": "where do I block my card"})
        for name, text in (("corpus.jsonl", lines), ("queries.jsonl", queries), ("qrels/test.tsv", qrels)):
            data = mark + text.encode() + end
            (tmp_path / (f"{name}.gz" if gz else name)).write_bytes(gzip.compress(data) if gz else data)
        found = contamination.read_evaluation_texts([str(tmp_path)])
        return sorted(found.find(token_hashes.hash_tokens([DOCUMENT, OTHER])))

    return read


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"number": int},
        {"key": "id"},
        {"qrels": "1 0 101 1\n"},
        {"qrels": "1\t101\t1.0\n"},
        {"qrels": "corpus-id\tquery-id\tscore\n101\t1\t1\n"},
        {"mark": b"\xef\xbb\xbf", "end": b"\n\n"},
        {"gz": True},
    ],
)
def test_judged_documents_are_guarded_in_every_form(guards, form):
    assert guards(**form) == [0]


def test_qrels_of_another_corpus_are_refused(guards):
    with pytest.raises(UserError, match=r"decontaminate: no document that .*/qrels names is in corpus\.jsonl"):
        guards(qrels="1\t9\t1\n")


def test_a_folder_without_qrels_is_refused(guards, tmp_path):
    guards()
    (tmp_path / "qrels/test.tsv").rename(tmp_path / "qrels/test.json")
    with pytest.raises(UserError, match=r"it has no qrels/\*\.tsv"):
        contamination.read_evaluation_texts([str(tmp_path)])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("set.jsonl", f'\ufeff{{"text": "{DOCUMENT}"}}\n\n'),
        ("set.txt", f"\ufeff{DOCUMENT}\n"),
        ("set.tsv", f'"We won\tWe lost\t1.0\n{DOCUMENT}\t"x\t1\n'),
        ("SET.CSV", f"{DOCUMENT},label\n\n"),
    ],
)
def test_every_line_of_a_file_is_guarded(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    found = contamination.read_evaluation_texts([str(tmp_path / name)])
    assert found.find(token_hashes.hash_tokens([DOCUMENT]))


def test_a_text_of_another_width_is_found(tmp_path):
    wide = "".join(chr(ord(letter) + 0xFEE0) if letter.isalnum() else letter for letter in DOCUMENT)
    (tmp_path / "set.txt").write_text(wide)
    found = contamination.read_evaluation_texts([str(tmp_path / "set.txt")])
    assert found.find(token_hashes.hash_tokens([DOCUMENT]))


def test_an_unclosed_quote_in_a_csv_is_refused(tmp_path):
    (tmp_path / "set.csv").write_text(f'"We won,We lost,1.0\n{DOCUMENT},b,1\n')
    with pytest.raises(UserError, match=r"set\.csv, line 2: this is not a CSV file: unexpected end of data"):
        contamination.read_evaluation_texts([str(tmp_path / "set.csv")])


def test_a_gzipped_file_that_is_cut_is_refused(tmp_path):
    (tmp_path / "set.txt.gz").write_bytes(gzip.compress(DOCUMENT.encode())[:-9])
    with pytest.raises(UserError, match=r"set\.txt\.gz cannot be read"):
        contamination.read_evaluation_texts([str(tmp_path / "set.txt.gz")])
