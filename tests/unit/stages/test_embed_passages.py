"""Passages' vectors: made once for a run by the reference, and anew by another."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from speed_ray.curation.reference_model import ReferenceModel
from speed_ray.errors import UserError
from speed_ray.stages import embed_passages
from speed_ray.storage.run import PASSAGE_EMBEDDINGS, Run
from speed_ray.storage.verify import verify
from tests.helpers.grounded_run import MINILM, example, grounded, passage, publish

ROWS = [passage(f"{name} is what this passage is about", name, title="On it") for name in
        ("bread", "rails", "whales", "guitars", "taxes", "roses", "bridges", "chess")]  # fmt: skip


def embedded(run: Run, reference: str = MINILM) -> dict[int, str]:
    """Embed; return the attempt at each shard."""
    settings = grounded(f"curate.reference={reference}").curate
    artifact = embed_passages.publish_embeddings(run, embed_passages.plan_embeddings(run, settings), settings)
    return {commit.shard: commit.attempt for commit in artifact.commits()}


@pytest.fixture
def passages(run, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(embed_passages, "SHARD_ROWS", 3)
    publish(run, ROWS, [example("a query", ROWS[0])])
    return run


def test_each_passage_has_the_vector_of_its_title_and_text(passages: Run) -> None:
    embedded(passages)
    rows = list(passages.artifact(PASSAGE_EMBEDDINGS).records())
    wanted = ReferenceModel(MINILM).embed_documents([f"On it {row['text']}" for row in ROWS])
    assert [row["id"] for row in rows] == [row["id"] for row in ROWS]
    assert np.abs(np.array([row["vector"] for row in rows]) - wanted).max() < 1e-3
    assert all(verdict.holds for verdict in verify(passages))


def test_a_second_drive_embeds_no_shard_that_is_committed(passages: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped(Exception):
        pass

    calls = []

    def stop(model: ReferenceModel, texts: list[str]) -> np.ndarray:
        calls.append(texts)
        if len(calls) == 2:
            raise Stopped
        return np.zeros((len(texts), 4), np.float32)

    monkeypatch.setattr(ReferenceModel, "embed_documents", stop)
    with pytest.raises(Stopped):
        embedded(passages)
    embedded(passages)
    assert [len(texts) for texts in calls] == [3, 3, 3, 2] and calls[1] == calls[2]


def test_another_reference_makes_all_vectors_anew_and_says_so(
    passages: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = embedded(passages)
    changed = shutil.copytree(MINILM, tmp_path / "changed")
    config = changed / "tokenizer_config.json"
    config.write_text(config.read_text().replace("{", '{"added": 1,', 1))
    with caplog.at_level(logging.WARNING):
        after = embedded(passages, str(changed))
    assert not set(before.values()) & set(after.values())
    assert "made by another reference" in caplog.text and all(verdict.holds for verdict in verify(passages))


def test_passages_that_are_not_there_are_named(run: Run) -> None:
    with pytest.raises(UserError, match=r"passages is not finished.*\n.*read-documents"):
        embedded(run)
