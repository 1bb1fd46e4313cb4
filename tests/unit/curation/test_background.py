"""A query's scores are held against those of all other texts, without a look at each."""

from pathlib import Path

import numpy as np
import pytest

from speed_ray.curation.background import Background
from speed_ray.curation.exact_search import VectorFile
from speed_ray.curation.query_blocks import open_corpus
from speed_ray.curation.scan import hash_texts
from speed_ray.storage.run import PASSAGES
from tests.helpers.grounded_run import example, passage, publish


def unit_vectors(rows: int, seed: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(0.3, 1, (rows, 12)).astype(np.float16).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@pytest.fixture
def background(tmp_path: Path) -> Background:
    vectors = VectorFile(tmp_path / "vectors", 12)
    vectors.append(unit_vectors(500, 0).astype(np.float16))
    texts = [f"text {number}" for number in range(500)]
    return Background(texts, hash_texts(texts), vectors)


def test_mean_and_deviation_are_those_of_all_cosines(background: Background) -> None:
    queries = unit_vectors(7, 1)
    cosines = background.cosines(queries)
    means, deviations = background.cosine_spread(queries)
    assert cosines.shape == (7, 500)
    assert means == pytest.approx(cosines.mean(1), abs=1e-5) and deviations == pytest.approx(cosines.std(1), abs=1e-4)


def test_one_text_has_no_deviation(tmp_path: Path) -> None:
    vectors = VectorFile(tmp_path / "vectors", 12)
    vectors.append(unit_vectors(1, 0).astype(np.float16))
    assert Background(["one"], hash_texts(["one"]), vectors).cosine_spread(unit_vectors(3, 1))[1].tolist() == [0, 0, 0]


def test_copies_of_a_passage_are_found_whatever_their_titles(run, tmp_path: Path) -> None:
    rows = [passage("a lamp", "d1", title="On lamps"), passage("a dog", "d2"), passage("A  LAMP", "d3", title="Other")]
    publish(run, rows, [example("which lamp", rows[0]), example("which dog", rows[1])])
    found = Background.of_corpus(open_corpus(run.artifact(PASSAGES), None, tmp_path))
    of_lamp, of_dog = found.copies_of([example("which lamp", rows[0]), example("which dog", rows[1])])
    assert (of_lamp.tolist(), of_dog.tolist()) == ([0, 2], [1])
