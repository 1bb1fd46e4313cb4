"""Tell how well queries find their own passages again, by the mixture that pairs are scored by too (mixture.py).

What reference and BM25 say of a query and all passages is put in standard deviations above the mean, and added. All
passages are compared, a few queries at a time, so that memory is flat.
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from speed_ray.curation.mixture import USUAL_WEIGHT, Floats, z_scores
from speed_ray.curation.passage_index import PassageIndex
from speed_ray.curation.query_blocks import Corpus, open_corpus
from speed_ray.curation.reference_model import Numbers, ReferenceModel, reference_folder
from speed_ray.storage.run import PASSAGE_EMBEDDINGS, PASSAGES, Run
from speed_ray.text.token_hashes import Places

AT_ONCE = 1 << 24  # cosines: 64 MB
NEARLY = 0.5  # standard deviations below its own passage within which another one answers a query nearly as well
LEAST_DEVIATION = 1e-6  # below which scores are one number that was rounded


class Standing(NamedTuple):
    """Tell where a query's own passage stands among all passages but its copies."""

    rank: int  # from 1
    margin: float  # of its score above the nearest other passage's, in standard deviations
    near: int  # other passages that answer the query nearly as well


class PassageRanks:
    """Rank all passages of a corpus for queries."""

    def __init__(self, corpus: Corpus) -> None:
        from speed_ray.curation.background import Background  # BM25's library takes a second to load

        self._index, self._passages = corpus.index, Background.of_corpus(corpus)

    def find(self, queries: Sequence[str], vectors: Numbers, own: Places) -> Iterator[Standing]:
        """Yield where the passage `own`, (queries,), of each query stands; `vectors` are theirs, (queries, width)."""
        at_once = max(1, AT_ONCE // len(self._index))
        for begin in range(0, len(queries), at_once):
            part = slice(begin, begin + at_once)
            copies = self._index.copies_of(self._index.texts[own[part]])
            for row, (query, cosines) in enumerate(
                zip(queries[part], self._passages.cosines(vectors[part]), strict=True)
            ):
                mixed = _in_deviations(cosines) + USUAL_WEIGHT * _in_deviations(self._passages.words.of_indexed(query))
                yield _stand(mixed, int(own[begin + row]), copies[copies[:, 0] == row, 1])


class QueryRanks:
    """Rank the published passages of a run for queries, which its reference embeds."""

    def __init__(self, run: Run, reference: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="speed_ray-ranks-")
        corpus = open_corpus(run.artifact(PASSAGES), run.artifact(PASSAGE_EMBEDDINGS), Path(self._folder.name))
        self._ranks, self._model = PassageRanks(corpus), ReferenceModel(reference_folder(reference))
        self.index: PassageIndex = corpus.index

    def find(self, queries: list[str], own: Places) -> Iterator[Standing]:
        """Yield where the passage `own`, (queries,), of each query stands."""
        return self._ranks.find(queries, self._model.embed_queries(queries), own)


def _stand(scores: Floats, own: int, copies: Places) -> Standing:
    ours = scores[own]
    scores[copies] = -np.inf  # its own among them
    above = int(np.count_nonzero(scores > ours))
    return Standing(above + 1, float(ours - scores.max()), int(np.count_nonzero(scores > ours - NEARLY)) - above)


def _in_deviations(scores: Floats) -> Floats:
    deviation = float(scores.std())
    found: Floats = z_scores(scores, float(scores.mean()), deviation if deviation > LEAST_DEVIATION else 0.0)
    return found
