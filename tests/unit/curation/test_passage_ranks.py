"""Where a query's own passage stands: as all passages' mixed scores say, one by one, but for its copies."""

from pathlib import Path

import numpy as np
import pytest

from speed_ray.curation import background, passage_ranks
from speed_ray.curation.passage_ranks import PassageRanks, Standing
from speed_ray.curation.query_blocks import Corpus, open_corpus
from speed_ray.records import PASSAGE_EMBEDDING, PassageRow
from speed_ray.stages.driver_stage import RowResult, publish_rows
from speed_ray.storage.run import PASSAGE_EMBEDDINGS, PASSAGES, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.text import bm25
from tests.helpers.grounded_run import passage, publish

WORDS = ("oak", "ash", "elm", "fir", "yew", "box", "bay", "fig")
TEXTS = [f"{WORDS[n % 8]} {WORDS[n // 3 % 8]} stands in field {n}" for n in range(40)]
QUERIES = ["oak in field 8", "fig bay", "elm", "a cold wind", "!"]
OWN = np.array([8, 7, 2, 30, 5])
VECTORS = np.random.default_rng(3).standard_normal((len(TEXTS) + len(QUERIES), 6)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)


def corpus(run: Run, rows: list[PassageRow], folder: Path, vectors: np.ndarray = VECTORS) -> Corpus:
    publish(run, rows, [])
    results = (RowResult(row["id"], {"id": row["id"], "vector": vector.astype(np.float16)}, None)
               for row, vector in zip(rows, vectors, strict=False))  # fmt: skip
    embeddings = run.artifact(PASSAGE_EMBEDDINGS)
    publish_rows(embeddings, Plan(PASSAGE_EMBEDDINGS, len(rows), 7), PASSAGE_EMBEDDING, results)
    return open_corpus(run.artifact(PASSAGES), embeddings, folder)


def standings(found: Corpus) -> list[Standing]:
    return list(PassageRanks(found).find(QUERIES, VECTORS[len(TEXTS) :], OWN))


def z(scores: np.ndarray) -> np.ndarray:
    return (scores - scores.mean()) / (scores.std() or np.inf)


def test_ranks_margins_and_what_is_nearly_as_near_are_those_of_all_passages(run, tmp_path: Path) -> None:
    found = standings(corpus(run, [passage(text, text) for text in TEXTS], tmp_path))
    index, documents = bm25.index_texts(TEXTS), VECTORS[: len(TEXTS)].astype(np.float16).astype(np.float64)
    for standing, query, vector, own in zip(found, QUERIES, VECTORS[len(TEXTS) :], OWN.tolist(), strict=True):
        words = bm25.bm25_words(query)
        mixed = z(documents @ vector) + 0.3 * z(index.get_scores(words) if words else np.zeros(len(TEXTS)))
        others = np.delete(mixed, own)
        assert standing.rank == 1 + (others > mixed[own]).sum()
        assert standing.margin == pytest.approx(mixed[own] - others.max(), abs=1e-3)
        assert standing.near == ((others <= mixed[own]) & (others > mixed[own] - 0.5)).sum()


def test_a_copy_of_a_passage_is_no_other_passage(run, tmp_path: Path) -> None:
    rows = [*(passage(text, text) for text in TEXTS[:20]), passage(TEXTS[8].upper(), "a copy")]
    vectors = VECTORS.copy()
    vectors[20] = vectors[8]
    [standing] = PassageRanks(corpus(run, rows, tmp_path, vectors)).find([TEXTS[8]], vectors[8:9], np.array([8]))
    assert standing.rank == 1 and standing.margin > 0


def test_memory_bounds_the_queries_at_once_and_changes_nothing(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = corpus(run, [passage(text, text) for text in TEXTS], tmp_path)
    together = standings(found)
    monkeypatch.setattr(passage_ranks, "AT_ONCE", 2 * len(TEXTS))
    monkeypatch.setattr(background, "BLOCK", 16)
    for one, other in zip(together, standings(found), strict=True):
        assert (one.rank, one.near) == (other.rank, other.near)
        assert one.margin == pytest.approx(other.margin, abs=1e-4)
