"""The documentation of installed packages becomes a collection whose queries people wrote."""

from jobs.write_docstrings import write_collection
from speed_ray.evaluation import datasets


def test_a_collection_is_read_as_beir_and_names_its_licences(tmp_path):
    count = write_collection(tmp_path, ["numpy"])
    found = datasets.read_beir(tmp_path)
    assert len(found.documents) == len(found.queries) == count > 100
    assert all(found.documents.values())
    assert "Redistribution and use" in (tmp_path / "LICENCES.txt").read_text()


def test_no_document_holds_the_line_that_asks_for_it(tmp_path):
    write_collection(tmp_path, ["numpy"])
    found = datasets.read_beir(tmp_path)
    copied = [
        query
        for query, text in found.queries.items()
        for document in found.relevant[query]
        if text in found.documents[document]
    ]
    assert len(copied) < 0.01 * len(found.queries)
