"""The nearest neighbour of each passage: of another document and other text, and none that is held out to train on."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from speed_ray.console import status
from speed_ray.curation.query_blocks import Asked, QueryBlock, open_corpus
from speed_ray.errors import UserError
from speed_ray.records import PassageRow, Row
from speed_ray.stages import neighbours
from speed_ray.stages.embed_passages import plan_embeddings, publish_embeddings
from speed_ray.storage.run import NEIGHBOURS, PASSAGES, Run
from speed_ray.storage.verify import verify
from tests.helpers.grounded_run import MINILM, grounded, passage
from tests.helpers.passages import publish_passages

REFERENCE = f"curate.reference={MINILM}"
LAMP, SEA = passage("a red lamp of round shape", "lamp"), passage("the deep blue sea", "sea")


def found(run: Run, passages: list[PassageRow], *overrides: str) -> list[Row]:
    """Publish passages and find their neighbours."""
    publish_passages(run, passages)
    return list(neighbours.publish_neighbours(run, grounded(*overrides).curate).records())


def test_the_nearest_by_words_is_kept_with_its_id(run: Run) -> None:
    square, harbour = passage("the red lamp is square", "square"), passage("a blue sea", "harbour", title="A harbour")
    rows = found(run, [LAMP, SEA, square, harbour])
    pairs = [(LAMP, square), (SEA, harbour), (square, LAMP), (harbour, SEA)]
    assert [(row["id"], row["neighbour_id"]) for row in rows] == [(one["id"], other["id"]) for one, other in pairs]
    assert rows[1]["neighbour"] == "A harbour a blue sea"
    assert all(verdict.holds for verdict in verify(run))


def test_by_a_reference_the_nearest_is_one_of_meaning(run: Run) -> None:
    cat, kitten = passage("The cat sat on the mat.", "cat"), passage("A kitten rests upon a rug.", "kitten")
    whip = passage("The cat of nine tails is a whip that hung on the mast.", "whip")
    assert found(run, [cat, whip, kitten], REFERENCE)[0]["neighbour"] == kitten["text"]


def test_neither_its_document_nor_its_text_is_a_passages_neighbour(run: Run) -> None:
    below, copy = passage("a red lamp of round form", "lamp"), passage("A  RED lamp of round shape", "copy")
    other = passage("a red lamp", "other")
    assert found(run, [LAMP, below, copy, other])[0]["neighbour"] == other["text"]


def test_a_held_out_passage_is_shown_beside_held_out_ones_alone(run: Run) -> None:
    held_out = [passage(f"a red lamp of round {what}", what, split="held_out") for what in ("form", "shade")]
    first, second, _, _ = found(run, [LAMP, *held_out, passage("a red house", "house")])
    assert first["neighbour"] == "a red house"
    assert second["neighbour"] in {LAMP["text"], held_out[1]["text"]}


def test_a_passage_without_a_neighbour_is_counted(run: Run) -> None:
    rows = found(run, [LAMP, SEA, passage("the deep blue lake", "lake")])
    assert [row["neighbour_id"] == "" for row in rows] == [True, False, False] and rows[0]["neighbour"] == ""
    [standing] = [each for each in status.artifact_statuses(run) if each.artifact == NEIGHBOURS]
    assert status.breakdown(standing) == ["  without a neighbour: 1"]


def test_shards_of_any_size_find_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passages = [passage(f"lamp {number} is {'red' if number % 3 else 'blue'}", f"d{number}") for number in range(10)]
    whole = found(Run(str(tmp_path / "whole")), passages, REFERENCE)
    monkeypatch.setattr(neighbours, "SHARD_ROWS", 3)
    assert found(Run(str(tmp_path / "parts")), passages, REFERENCE) == whole


def test_neighbours_by_another_reference_are_not_mixed_with_these(run: Run) -> None:
    found(run, [LAMP, SEA])
    with pytest.raises(UserError, match=r"identity\.reference: was None"):
        neighbours.publish_neighbours(run, grounded(REFERENCE).curate)


def test_passages_that_are_queries_travel_to_a_worker_as_their_vectors(run: Run, tmp_path: Path) -> None:
    publish_passages(run, [LAMP, SEA])
    settings = grounded(REFERENCE).curate
    embeddings = publish_embeddings(run, plan_embeddings(run, settings), settings)
    corpus = open_corpus(run.artifact(PASSAGES), embeddings, tmp_path)
    block = QueryBlock(np.array([1]), corpus, None, np.arange(2), corpus.index.texts, 5)
    sent = pickle.loads(pickle.dumps(block))
    assert isinstance(sent, Asked) and sent.depth == 5 and sent.copies.tolist() == [[0, 1]]
    assert np.abs(sent.queries - corpus.vectors.gather(np.array([1]))).max() == 0 and abs(sent.own - 1).max() < 1e-2
