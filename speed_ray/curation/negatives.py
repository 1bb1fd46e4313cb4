"""Mine hard negatives for examples that have none, from the positives of other examples of their kind.

By the reference embedder where the recipe has one, else by words (BM25). Never a text of the same task, nor one that
answers the same query elsewhere in the set; nor the nearest few that remain, which are the likeliest to be right
answers that nobody marked. By a reference, a text that is nearly as near as the positive is left out too, as by
NV-Retriever (arXiv 2407.15831). Negatives are sought among 16,384 rows at a time, which keeps memory flat, and on
their own side of the split.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from speed_ray.curation.reference_model import Numbers, Vectors
from speed_ray.recipes.curate_settings import MineNegatives
from speed_ray.records import Row
from speed_ray.text.rules import is_plain
from speed_ray.text.token_hashes import Places

WINDOW = 16_384  # rows


def mine_negatives(rows: Sequence[Row], settings: MineNegatives, vectors: Vectors | None) -> None:
    """Give each row without negatives up to `count` of them. `vectors`: of query and positive, (rows, 2, width)."""
    groups = defaultdict(list)
    for place, row in enumerate(rows):
        groups[row["kind"], row["split"]].append(place)
    for places in groups.values():
        wanting = [place for place in places if not rows[place]["negatives"]]
        if wanting:
            _mine([rows[place] for place in places], settings, None if vectors is None else vectors[places])


def _mine(rows: list[Row], settings: MineNegatives, vectors: Vectors | None) -> None:
    answers: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        answers[is_plain(row["query"])].add(is_plain(row["positive"]))
    wanting = np.array([place for place, row in enumerate(rows) if not row["negatives"]])
    ranked = _by_words(rows, wanting, settings) if vectors is None else _by_vectors(vectors, wanting, settings)
    for place, candidates in zip(wanting.tolist(), ranked, strict=True):
        row, query = rows[place], is_plain(rows[place]["query"])
        found = (rows[other] for other in candidates if rows[other]["parent_id"] != row["parent_id"])
        texts = {is_plain(other["positive"]): other["positive"] for other in found}  # nearest first, each text once
        known = answers[query] | {query}
        row["negatives"] = [text for same, text in texts.items() if same not in known][
            settings.skip_nearest : settings.skip_nearest + settings.count
        ]


def _by_words(rows: list[Row], wanting: Places, settings: MineNegatives) -> Iterator[list[int]]:
    """Rank, for each wanting row, the rows whose positives share words with its query, best first, by BM25."""
    from speed_ray.text import bm25  # takes a second to load

    index = bm25.index_texts([row["positive"] for row in rows])
    asked = [bm25.bm25_words(rows[place]["query"]) for place in wanting]
    depth = min(settings.depth, len(rows))
    places, scores = index.retrieve(asked, k=depth, show_progress=False)
    for found, score in zip(places, scores, strict=True):
        yield found[score > 0].tolist()


def _by_vectors(vectors: Vectors, wanting: Places, settings: MineNegatives) -> Iterator[list[int]]:
    """Rank, for each wanting row, the rows by cosine, nearest first, but for those nearly as near as its positive."""
    positives = np.asarray(vectors[:, 1], np.float32)
    for place in wanting.tolist():
        cosines: Numbers = positives @ np.asarray(vectors[place, 0], np.float32)
        nearest = np.argsort(-cosines, kind="stable")[: settings.depth + 1]
        if settings.max_of_positive is not None:
            nearest = nearest[cosines[nearest] <= share_of(cosines[place], settings.max_of_positive)]
        yield nearest.tolist()


def share_of(cosine: Any, share: float) -> Any:
    """Return the cosine below which others are at most that share of it: of a negative one, 95% lie above it."""
    return cosine - np.abs(cosine) * (1 - share)
