"""Exact search: what it finds is what a full sort of all scores finds, whatever the blocks."""

from pathlib import Path

import numpy as np
import pytest

from speed_ray.curation import exact_search
from speed_ray.curation.exact_search import Hits, VectorFile, VectorSearch

ROWS, WIDTH, DEPTH = 100, 16, 9


def unit(rows: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, WIDTH)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def vectors(tmp_path: Path) -> VectorFile:
    file = VectorFile(tmp_path / "vectors", WIDTH)
    for block in np.split(unit(ROWS, 0).astype(np.float16), [30, 31, 90]):
        file.append(block)
    return file


def by_cosine(vectors: VectorFile, own: np.ndarray, copies: np.ndarray | None = None, depth: int = DEPTH) -> Hits:
    queries = unit(len(own), 1)
    copies = np.stack([np.arange(len(own)), own], 1) if copies is None else copies
    ours = (queries * vectors.gather(own)).sum(1)
    return VectorSearch(vectors, "cpu").search(queries, ours, copies, depth)


@pytest.mark.parametrize("block", [1, 7, 50, 1_000])
def test_blocks_find_what_a_full_sort_finds(vectors: VectorFile, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(exact_search, "BLOCK", block)
    own = np.arange(20)
    scores = unit(20, 1) @ vectors.block(0, ROWS).astype(np.float32).T
    found = by_cosine(vectors, own)
    assert (found.nearest == np.argsort(-scores, 1)[:, :DEPTH]).all()
    assert (found.ranks == 1 + (scores > scores[own, own][:, None]).sum(1)).all()


def test_a_copy_of_the_own_passage_does_not_push_it_down(vectors: VectorFile) -> None:
    first = by_cosine(vectors, np.array([5]))
    assert first.ranks[0] > 1, "chosen so that others are nearer"
    nearer = first.nearest[0, 0]
    copies = np.array([[0, 5], [0, nearer]])
    assert by_cosine(vectors, np.array([5]), copies).ranks[0] == first.ranks[0] - 1


def test_a_corpus_smaller_than_the_depth_leaves_places_empty(vectors: VectorFile) -> None:
    found = by_cosine(vectors, np.arange(3), depth=ROWS + 4)
    assert (found.nearest[:, ROWS:] == -1).all() and (np.sort(found.nearest[:, :ROWS]) == np.arange(ROWS)).all()
