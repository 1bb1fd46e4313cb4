"""Score examples by all judges: the positive, each negative and, where better positives are sought, its neighbours."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from speed_ray.curation.background import Background
from speed_ray.curation.cross_encoder import CrossEncoder
from speed_ray.curation.judge_faults import refuse_useless_models
from speed_ray.curation.kind_sides import answers_are_passages
from speed_ray.curation.mixture import gains_by_weight
from speed_ray.curation.prompt_copies import copied_shares
from speed_ray.curation.reference_model import Numbers, ReferenceModel
from speed_ray.recipes.score_settings import BM25, REFERENCE
from speed_ray.records import HELD_OUT, CandidateScores, CuratedRow, PairScoresRow
from speed_ray.text.bm25 import Scores
from speed_ray.text.token_hashes import Hashes, Places

ROWS = 32  # at once: their cosines with a million passages take 128 MB


class Searched(NamedTuple):
    """Hold a query's scores of all other texts, (texts,) each, and the places of the positive's own text there."""

    cosines: Numbers | None
    words: Scores
    copies: Places


class PairJudge:
    """Score examples; the same rows have the same scores when they go together."""

    def __init__(
        self,
        background: Background,
        reference: ReferenceModel | None,
        cross_encoders: Mapping[str, CrossEncoder],
        triples: Hashes,
        grounded: bool,
        neighbours: int,
    ) -> None:
        self.background = background
        self.reference = reference
        self.cross_encoders = cross_encoders
        self.triples = triples  # of the prompts
        self.grounded = grounded
        self.neighbours = neighbours  # by each of reference and words; 0: none is sought

    def judge(self, rows: Sequence[CuratedRow]) -> list[PairScoresRow]:
        """Score some rows. Raises UserError for a judge whose scores are no finite numbers, or all one."""
        copied = copied_shares(rows, self.triples, self.grounded)
        found: list[PairScoresRow] = []
        for begin in range(0, len(rows), ROWS):
            found += self._judge(rows[begin : begin + ROWS], copied[begin : begin + ROWS])
        refuse_useless_models(found, list(self.cross_encoders))
        return found

    def _judge(self, rows: Sequence[CuratedRow], copied: Sequence[float]) -> list[PairScoresRow]:
        queries = self.reference.embed_queries([row["query"] for row in rows]) if self.reference else None
        words = [self.background.words.of_indexed(row["query"]) for row in rows]
        searched = self._search(rows, queries, words)
        neighbours = [
            self._neighbours(row, searched[place]) if self._is_sought(row) else [] for place, row in enumerate(rows)
        ]
        texts = [[row["positive"], *row["negatives"], *near] for row, near in zip(rows, neighbours, strict=True)]
        judged = self._scores([row["query"] for row in rows], texts, queries, words)
        return [
            {
                "id": row["id"],
                "kind": row["kind"],
                "background": len(self.background),
                "neighbours": neighbours[place],
                "judged": judged[place],
                "gains": _gains(judged[place], searched[place]) if self._is_ranked(row) else [],
                "copied": copied[place],
            }
            for place, row in enumerate(rows)
        ]

    def _is_ranked(self, row: CuratedRow) -> bool:
        """Tell if a row's positive is to be found among the other texts, to weigh BM25 by."""
        return self.reference is not None and row["split"] == HELD_OUT

    def _is_sought(self, row: CuratedRow) -> bool:
        """Tell if a better positive is sought for a row: for none by which models are compared."""
        return self.neighbours > 0 and row["split"] != HELD_OUT and answers_are_passages(row["kind"])

    def _search(
        self, rows: Sequence[CuratedRow], queries: Numbers | None, words: Sequence[Scores]
    ) -> dict[int, Searched]:
        """Search the other texts for the rows that want it, by their places."""
        wanting = [place for place, row in enumerate(rows) if self._is_sought(row) or self._is_ranked(row)]
        if not wanting:
            return {}
        cosines: list[Numbers | None] = [None] * len(wanting)
        if queries is not None:
            cosines = list(self.background.cosines(queries[wanting]))
        copies = self.background.copies_of([rows[place] for place in wanting])
        found = zip(wanting, cosines, copies, strict=True)
        return {place: Searched(by_vector, words[place], own) for place, by_vector, own in found}

    def _neighbours(self, row: CuratedRow, searched: Searched) -> list[str]:
        """Return the nearest passages, by cosine, then by words, that are not the row's own."""
        index = self.background.index
        assert index is not None, "by the recipe's check"
        known = {row["query"], row["positive"], *row["negatives"]}
        free = ~index.held_out
        free[searched.copies] = False
        found: dict[str, None] = {}
        for scores in (searched.cosines, searched.words):
            if scores is not None:
                places = _best(np.where(free, scores, 0), self.neighbours + len(known))
                texts = [text for place in places if (text := index.text(place)) not in known]
                found |= dict.fromkeys(texts[: self.neighbours])
        return list(found)

    def _scores(
        self, asked: Sequence[str], texts: list[list[str]], queries: Numbers | None, words: Sequence[Scores]
    ) -> list[list[CandidateScores]]:
        """Return each row's scores by every judge but the mixture."""
        found = [[self._by_words(*row)] for row in zip(asked, texts, words, strict=True)]
        if queries is not None:
            for each, scores in zip(found, self._by_reference(queries, texts), strict=True):
                each.append(scores)
        for name, model in self.cross_encoders.items():
            pairs = [(query, text) for query, some in zip(asked, texts, strict=True) for text in some]
            logits = iter(model.score(*zip(*pairs, strict=True)))
            for each, some in zip(found, texts, strict=True):
                each.append({"judge": name, "scores": [next(logits) for _ in some], "mean": 0.0, "deviation": 0.0})
        return found

    def _by_words(self, query: str, texts: list[str], others: Scores) -> CandidateScores:
        scores = self.background.words.of_texts(query, texts)
        mean, deviation = others.mean(dtype=np.float64), others.std(dtype=np.float64)
        return {"judge": BM25, "scores": scores, "mean": float(mean), "deviation": float(deviation)}

    def _by_reference(self, queries: Numbers, texts: list[list[str]]) -> list[CandidateScores]:
        assert self.reference is not None
        distinct = list(dict.fromkeys(text for some in texts for text in some))
        vectors = dict(zip(distinct, self.reference.embed_documents(distinct), strict=True))
        means, deviations = self.background.cosine_spread(queries)
        return [
            {
                "judge": REFERENCE,
                "scores": [float(query @ vectors[text]) for text in some],
                "mean": mean,
                "deviation": deviation,
            }
            for query, some, mean, deviation in zip(queries, texts, means.tolist(), deviations.tolist(), strict=True)
        ]


def _gains(judged: Sequence[CandidateScores], searched: Searched) -> list[float]:
    assert searched.cosines is not None
    return gains_by_weight(judged, searched.cosines, searched.words, searched.copies.tolist())


def _best(scores: Numbers, count: int) -> list[int]:
    """Find the places of the highest scores above 0, the best first."""
    count = min(count, len(scores))
    places = np.argpartition(scores, -count)[-count:]
    places = places[np.lexsort((places, -scores[places]))]
    found: list[int] = places[scores[places] > 0].tolist()
    return found
