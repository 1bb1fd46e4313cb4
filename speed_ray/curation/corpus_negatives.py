"""Mine hard negatives from the passages of a corpus, and count what each rule refused.

The nearest passages are looked at, by each retriever in turn. Never one of the positive's text or document, and for an
example to train on none of a document that is held out, which would then be learnt from. By a reference, none that is
nearly as near to the query as the positive (NV-Retriever, arXiv 2407.15831), nor one that is nearly as near to the
positive as the query is: of 24 paraphrases of positives a third ranked lower than 95%, and all were refused by this
rule, which takes another 9 to 11% of the nearest hundred passages of two real corpora. Of what is left the nearest few
are spared.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from speed_ray.curation.corpus_search import Found
from speed_ray.curation.kind_sides import answers_are_passages
from speed_ray.curation.negatives import share_of
from speed_ray.curation.passage_index import NOWHERE
from speed_ray.curation.query_blocks import Corpus, own_vectors
from speed_ray.curation.reference_model import Numbers, Vectors
from speed_ray.recipes.curate_settings import Curate
from speed_ray.records import HELD_OUT, CuratedRow, Row, seed_of
from speed_ray.text.token_hashes import Places

ROWS = 128  # at once: with 100 candidates each, their vectors take 20 MB
# In this order: a candidate is counted for the first that refuses it.
RULES = ("same_text", "same_document", "held_out", "max_of_positive", "absolute_margin", "max_near_positive")
FREE, NONE = -1, -2  # refused by no rule; no passage, or the positive itself
RANDOM = "random"  # the fallback, in the account
DRAWS = 4  # passages drawn at random for each negative

Refused = np.ndarray[Any, np.dtype[np.int8]]  # index into RULES, or FREE, or NONE


def takes_passages(row: Row) -> bool:
    """Tell whether an example is to get passages as negatives: where it has none, and a passage may answer it."""
    return not row["negatives"] and answers_are_passages(row["kind"])


@dataclass(frozen=True)
class CorpusMiner:
    """Give examples negatives from a corpus in which their queries were searched for."""

    corpus: Corpus
    found: Found
    vectors: Vectors | None  # of the examples' queries and positives, on disk
    settings: Curate

    def mine(self, rows: Sequence[CuratedRow], places: Places) -> list[Counter[str]]:
        """Give the examples at `places` their negatives; return what was counted for each."""
        counted = []
        for begin in range(0, len(rows), ROWS):
            counted += self._mine(rows[begin : begin + ROWS], places[begin : begin + ROWS])
        return counted

    def _mine(self, rows: Sequence[CuratedRow], places: Places) -> list[Counter[str]]:
        wanted, index = self.settings.mine_negatives, self.corpus.index
        taken = [Taken(self.corpus) for _ in rows]
        for name in self.settings.miners:
            candidates = self.found.nearest[name].rows_at(places)
            refused = self._refused(rows, places, candidates)
            for each, some, rules in zip(taken, candidates, refused, strict=True):
                each.take(name, some, rules, wanted.count, wanted.skip_nearest)
        total = wanted.count * len(self.settings.miners)
        short = np.array([len(each.places) < total for each in taken])
        if wanted.fallback and short.any():
            candidates = np.stack([_drawn(row, len(index), DRAWS * total) for row in rows])
            candidates[~short] = NOWHERE
            refused = self._refused(rows, places, candidates)
            for each, some, rules in zip(taken, candidates, refused, strict=True):
                each.take(RANDOM, some, rules, total - len(each.places), 0)
        for row, each in zip(rows, taken, strict=True):
            row["negatives"] = [index.text(place) for place in each.places]
            each.counted["rows"] = 1
            each.counted["rows: short"] = int(len(each.places) < total)
        return [each.counted for each in taken]

    def _refused(self, rows: Sequence[CuratedRow], places: Places, candidates: Places) -> Refused:
        """Find for each candidate, (rows, candidates), the first rule that refuses it."""
        index, found = self.corpus.index, self.found
        answers, parents = (each[places][:, None] for each in (found.answers, found.parents))
        refused = np.full(candidates.shape, FREE, np.int8)
        refused[(candidates == NOWHERE) | (candidates == answers)] = NONE
        held_out = np.array([[row["split"] == HELD_OUT] for row in rows])
        broken = {
            "same_text": index.texts[candidates] == found.texts[places][:, None],
            "same_document": (index.documents[candidates] == index.documents[parents]) & (parents != NOWHERE),
            "held_out": index.held_out[candidates] & ~held_out,
        }
        for rule, by_it in broken.items():
            refused[(refused == FREE) & by_it] = RULES.index(rule)
        if self.vectors is not None:
            self._refuse_near(places, candidates, refused)
        return refused

    def _refuse_near(self, places: Places, candidates: Places, refused: Refused) -> None:
        """Mark the candidates that are too near to the query or the positive, by the reference."""
        assert self.vectors is not None and self.corpus.vectors is not None
        settings = self.settings.mine_negatives
        queries, positives = own_vectors(self.corpus, self.vectors[places], self.found.answers[places])
        own = (queries * positives).sum(1)
        rows, columns = np.nonzero(refused == FREE)
        distinct, which = np.unique(candidates[rows, columns], return_inverse=True)
        vectors: Numbers = self.corpus.vectors.gather(distinct)[which]
        to_query, to_positive = (np.einsum("ij,ij->i", side[rows], vectors) for side in (queries, positives))
        limits = [
            ("max_of_positive", to_query, settings.max_of_positive, lambda share: share_of(own[rows], share)),
            ("absolute_margin", to_query, settings.absolute_margin, lambda margin: own[rows] - margin),
            ("max_near_positive", to_positive, settings.max_near_positive, lambda share: share_of(own[rows], share)),
        ]
        for rule, cosines, setting, limit in reversed(limits):  # the first rule has the last word
            if setting is not None:
                broken = cosines > limit(setting)
                refused[rows[broken], columns[broken]] = RULES.index(rule)


class Taken:
    """Collect the negatives of one example, each text once, and count what became of the candidates."""

    def __init__(self, corpus: Corpus) -> None:
        self.counted: Counter[str] = Counter()
        self.places: list[int] = []
        self._texts = corpus.index.texts
        self._seen: set[int] = set()  # texts taken or spared

    def take(self, name: str, candidates: Places, refused: Refused, count: int, spare: int) -> None:
        """Take up to `count` candidates that no rule refuses, nearest first; the first of them are spared."""
        self.counted.update(f"{name}: {RULES[rule]}" for rule in refused[refused >= 0].tolist())
        free = candidates[refused == FREE]
        fresh: dict[int, int] = {}
        for place, text in zip(free.tolist(), self._texts[free].tolist(), strict=True):
            if text not in self._seen and len(fresh) < spare + count:
                fresh.setdefault(text, place)
        chosen = list(fresh.values())[spare:]
        self.counted[f"{name}: skip_nearest"] += len(fresh) - len(chosen)
        self.counted[f"{name}: wanted"] += count
        self.counted[f"{name}: filled"] += len(chosen)
        self.places += chosen
        self._seen.update(fresh)


def _drawn(row: Row, passages: int, count: int) -> Places:
    """Draw passages at random, for a row always the same."""
    return np.random.default_rng(seed_of(0, row["id"], "negatives")).integers(0, passages, count)
