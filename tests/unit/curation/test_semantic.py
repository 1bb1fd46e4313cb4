"""Semantic repetition: an earlier row that stays, near enough, and nothing else, however many blocks and cells."""

import numpy as np
import pytest

from speed_ray.curation import semantic


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def said_again(vectors: np.ndarray, wanted: np.ndarray, similarity: float) -> list[int]:
    """The rule, row by row."""
    cosines = vectors.astype(np.float32) @ vectors.astype(np.float32).T
    first: list[int] = []
    for row in range(len(vectors)):
        near = [other for other in range(row) if first[other] == other and wanted[other] and wanted[row]]
        first.append(next((other for other in near if cosines[row, other] >= similarity), row))
    return first


@pytest.mark.parametrize("block", [7, 50, 1_000])
def test_blocks_find_what_row_by_row_finds(monkeypatch, block):
    rng = np.random.default_rng(0)
    vectors = unit(rng.normal(size=(30, 8))[rng.integers(0, 30, 150)] + rng.normal(size=(150, 8)) * 0.3)
    wanted = rng.random(150) < 0.8
    monkeypatch.setattr(semantic, "BLOCK", block)
    found = semantic.find_semantic_duplicates(vectors, wanted, 0.9).tolist()
    assert found == said_again(vectors, wanted, 0.9) and len(set(found)) < 140


def test_cells_part_what_is_far_and_find_what_is_near(monkeypatch):
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(5, 16))
    place = np.repeat(np.arange(5), 40)
    vectors = unit(centres[place] * 3 + rng.normal(size=(200, 16)))
    vectors[10::40] = vectors[3::40]
    monkeypatch.setattr(semantic, "CELL", 60)
    wanted = np.ones(200, bool)
    found = semantic.find_semantic_duplicates(vectors, wanted, 0.999)
    assert [row for row, first in enumerate(found) if first != row] == list(range(10, 200, 40))
