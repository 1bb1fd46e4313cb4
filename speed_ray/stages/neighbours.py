"""Find the nearest neighbour of each passage, for prompts that ask for what the passage answers and it does not.

The nearest by the reference's vectors or, without a reference, by BM25 with the whole passage as the query: of another
document, of other text, and for a passage to train on of no document that is held out, which would be learnt from. A
passage of which none of the `DEPTH` nearest will do has no neighbour, and is asked about without.
"""

import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from speed_ray.curation.passage_index import NOWHERE, PassageIndex
from speed_ray.curation.query_blocks import Corpus, QueryBlock, open_corpus, search_vectors
from speed_ray.curation.reference_model import reference_digest
from speed_ray.executor.stage import artifact_identity, count_records
from speed_ray.recipes.curate_settings import Curate
from speed_ray.records import NEIGHBOUR, NeighbourRow, PassageRow
from speed_ray.stages import driver_stage
from speed_ray.stages.embed_passages import plan_embeddings, publish_embeddings
from speed_ray.storage.fingerprint import code_digests
from speed_ray.storage.planned_rows import read_records
from speed_ray.storage.run import NEIGHBOURS, PASSAGES, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import Artifact
from speed_ray.text.token_hashes import Places

DEPTH = 100  # nearest passages that are looked at
SHARD_ROWS = 1_024  # searched for at once
ALONE = "without a neighbour"  # in the account


def publish_neighbours(run: Run, settings: Curate) -> Artifact:
    """Find the neighbours of all passages, on Ray's workers where the recipe says so, and publish them.

    Raises UserError before the passages are published, or where the neighbours were found in another way.
    """
    artifact, passages = run.artifact(NEIGHBOURS), run.artifact(PASSAGES)
    identity = {
        "code": code_digests(__name__, unused=[] if settings.reference else ["stages.embed_passages"]),
        "input": artifact_identity(passages),
        "reference": settings.reference and reference_digest(settings.reference),
    }
    plan = Plan(NEIGHBOURS, count_records(passages), SHARD_ROWS, input=PASSAGES, identity=identity)
    driver_stage.publish_shards(
        artifact, plan, NEIGHBOUR, lambda pending: _find_shards(run, plan, settings, sorted(pending))
    )
    return artifact


def _find_shards(run: Run, plan: Plan, settings: Curate, shards: Collection[int]) -> driver_stage.Shards:
    if not shards:
        return
    passages = run.artifact(PASSAGES)
    embeddings = publish_embeddings(run, plan_embeddings(run, settings), settings) if settings.reference else None
    with tempfile.TemporaryDirectory(prefix="speed_ray-neighbours-") as folder:
        corpus = open_corpus(passages, embeddings, Path(folder))
        parts = [np.array(plan.rows_of(shard)) for shard in shards]
        search = _search_vectors if embeddings else _search_words
        for places, nearest in search(corpus, parts, settings):
            shard = int(places[0]) // plan.shard_rows
            chosen = _choose(corpus.index, places, nearest).tolist()
            rows = zip(read_records(passages, plan.rows_of(shard)), chosen, strict=True)
            yield shard, [_with_neighbour(row, corpus.index, place) for row, place in rows]


def _search_vectors(corpus: Corpus, parts: list[Places], settings: Curate) -> Iterator[tuple[Places, Places]]:
    everyone = np.arange(len(corpus.index))
    blocks = [QueryBlock(part, corpus, None, everyone, corpus.index.texts, DEPTH) for part in parts]
    for places, hits in search_vectors(corpus, blocks, settings.workers):
        yield places, hits.nearest


def _search_words(corpus: Corpus, parts: list[Places], settings: Curate) -> Iterator[tuple[Places, Places]]:
    from speed_ray.curation.word_search import WordSearch  # its library takes a second to load

    index = corpus.index
    search = WordSearch(map(index.text, range(len(index))))
    for places in parts:
        queries = [index.text(place) for place in places.tolist()]
        yield places, search.search(queries, places, index.copies_of(index.texts[places]), DEPTH).nearest


def _choose(index: PassageIndex, places: Places, nearest: Places) -> Places:
    """Choose the first of the nearest, (places, depth), that may be shown beside each passage, NOWHERE for none."""
    own = places[:, None]
    fits = (nearest != NOWHERE) & (index.documents[nearest] != index.documents[own])
    fits &= index.texts[nearest] != index.texts[own]
    fits &= index.held_out[own] | ~index.held_out[nearest]
    first = nearest[np.arange(len(places)), fits.argmax(1)]
    return np.where(fits.any(1), first, NOWHERE)


def _with_neighbour(passage: PassageRow, index: PassageIndex, place: int) -> driver_stage.RowResult:
    name, text = ("", "") if place == NOWHERE else index.id_and_text(place)
    record: NeighbourRow = {**passage, "neighbour_id": name, "neighbour": text}
    return driver_stage.RowResult(passage["id"], record, None, {ALONE: int(place == NOWHERE)})
