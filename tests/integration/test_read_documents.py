"""Documents that Ray's workers read and split are those that one process reads and splits."""

from pathlib import Path
from typing import Any

import pytest

from speed_ray.pipeline import read_documents
from speed_ray.recipes.schema import Recipe
from speed_ray.storage.run import DOCUMENTS, PASSAGES, Run
from speed_ray.storage.verify import verify
from tests.unit.documents.test_splitter import tokenizer

pytestmark = pytest.mark.slow


def read(folder: Path, workers: int) -> dict[str, list[Any]]:
    """Read the documents with so many workers. Returns the records of both artifacts."""
    corpus = {"source": str(folder / "in"), "tokenizer": str(folder), "tokens": 8, "shard_rows": 16}
    tree = {"corpus": {**corpus, "workers": {"num_workers": workers}}, "generator": {"engine": "simulated"}}
    run = Run(str(folder / f"run-{workers}"))
    read_documents(run, Recipe.model_validate(tree))
    assert all(verdict.holds for verdict in verify(run))
    return {name: list(run.artifact(name).records()) for name in (DOCUMENTS, PASSAGES)}


def test_workers_change_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("speed_ray.documents.spool.ROWS", 10)  # files a task
    tokenizer().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "in").mkdir()
    for number in range(60):
        text = f"# Page {number % 50}\n\nIt has number {number % 50 * 7}. " + "There is more to say. " * (
            number % 50 % 7
        )
        (tmp_path / "in" / f"{number}.md").write_text(text)
    one, two = read(tmp_path, 1), read(tmp_path, 2)
    assert len(one[DOCUMENTS]) == 50
    assert one == two
