"""Committed shards, as they are, become tokenized triples: this worker's rows of each batch, read ahead of training.

Memory holds one window of shards as Arrow tables, and a few batches of token ids, however many rows there are.
"""

import hashlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from transformers import PreTrainedTokenizerBase

from speed_ray.recipes.schema import Embedder
from speed_ray.storage.shards import RECORDS, Artifact
from speed_ray.training import distributed
from speed_ray.training.contrastive.batches import ROW_BITS, Batch, BatchGroup, RowsByGroup, WindowBatches
from speed_ray.training.contrastive.encoder import format_query
from speed_ray.training.contrastive.train_step import TokenizedExample, text_hash

COLUMNS = ("id", "kind", "instruction", "query", "positive", "negatives")
PREFETCH_BATCHES = 4  # batches that wait for training at most


@dataclass(frozen=True)
class LocalBatch:
    """This worker's rows of one batch. `row_ids` are those of the whole batch, in its order.

    `cut` counts the texts that were too long; `instructed` says whether a query had an instruction.
    """

    own_negatives_only: bool
    rows: list[TokenizedExample]
    cut: int
    instructed: bool
    row_ids: list[str]


@dataclass
class Corpus:
    """The rows of an artifact that are trained on, by shard, as a published or a followed one has them."""

    artifact: Artifact
    own_negatives_only: Sequence[str]
    path_of: Callable[[int], str | None]  # the file of a shard's records, None where it has none

    def table(self, shard: int) -> pa.Table:
        """Read a shard's rows, those that are held out excepted."""
        path = self.path_of(shard)
        if path is None:
            return pa.table({name: [] for name in COLUMNS})
        table = self.artifact.read(path)
        if "split" in table.column_names:
            table = table.filter(pc.equal(table["split"], "train"))
        return table.select(COLUMNS)

    def families(self, shard: int) -> RowsByGroup:
        """Tell a shard's rows, by their number in `table`, by family.

        A row that only its own negatives count against, and that has none, teaches nothing: it has no family.
        """
        table = self.table(shard)
        kinds = np.array(table["kind"].to_pylist(), dtype=object)
        negatives = np.array(pc.list_value_length(table["negatives"]).to_pylist(), dtype=np.int64)
        found: dict[BatchGroup, np.ndarray] = {}
        for kind, count in sorted(set(zip(kinds.tolist(), negatives.tolist(), strict=True))):
            family = BatchGroup(kind, count, kind in self.own_negatives_only)
            if count or not family.own_negatives_only:
                found[family] = np.flatnonzero((kinds == kind) & (negatives == count)).astype(np.int32)
        return found


def published_corpus(artifact: Artifact, own_negatives_only: Sequence[str]) -> tuple[Corpus, int]:
    """Return the rows of a published artifact, and how many shards have any; these are numbered from 0."""
    paths = [file.path for file in artifact.record_files().values()]
    return Corpus(artifact, own_negatives_only, paths.__getitem__), len(paths)


def streaming_corpus(artifact: Artifact, own_negatives_only: Sequence[str]) -> Corpus:
    """Return the rows of an artifact of which single shards are committed."""

    def path_of(shard: int) -> str | None:
        commit = artifact.commit_of(shard)
        return commit.files[RECORDS].path if commit and RECORDS in commit.files else None

    return Corpus(artifact, own_negatives_only, path_of)


@dataclass
class BatchReader:
    """Reads shares ahead in a thread."""

    corpus: Corpus
    tokenizer: PreTrainedTokenizerBase
    settings: Embedder
    max_length: int
    _ready: "queue.Queue[LocalBatch | BaseException | None]" = field(
        default_factory=lambda: queue.Queue(PREFETCH_BATCHES)
    )
    _ended: threading.Event = field(default_factory=threading.Event)

    def shares(self, drawn: Iterable[WindowBatches], skip: int) -> Iterator[LocalBatch]:
        """Yield this worker's share of each batch after the first `skip`; close it to end the thread."""
        threading.Thread(target=self._fill, args=(drawn, skip), daemon=True).start()
        try:
            while (share := self._ready.get()) is not None:
                if isinstance(share, BaseException):
                    raise share
                yield share
        finally:
            self._ended.set()

    def _fill(self, drawn: Iterable[WindowBatches], skip: int) -> None:
        try:
            for share in self._shares(drawn, skip):
                self._put(share)
                if self._ended.is_set():
                    return
            self._put(None)
        except BaseException as error:
            self._put(error)

    def _put(self, share: LocalBatch | BaseException | None) -> None:
        while not self._ended.is_set():
            try:
                return self._ready.put(share, timeout=1)
            except queue.Full:
                continue

    def _shares(self, drawn: Iterable[WindowBatches], skip: int) -> Iterator[LocalBatch]:
        held = RowCache(self.corpus)
        for each in drawn:
            wanted = each.batches[skip:]
            skip -= len(each.batches) - len(wanted)
            if wanted:
                held = held.moved_on(np.concatenate([batch.places for batch in wanted] + list(each.left.values())))
            for batch in wanted:
                yield self._share(batch, held)

    def _share(self, batch: Batch, held: "RowCache") -> LocalBatch:
        size = len(batch.places) // distributed.world_size()
        mine = batch.places[distributed.rank() * size : (distributed.rank() + 1) * size]
        table = held.rows(mine).to_pydict()
        rows, cut = self._triples(table)
        return LocalBatch(batch.own_negatives_only, rows, cut, any(table["instruction"]), held.ids(batch.places))

    def _triples(self, table: dict[str, list[Any]]) -> tuple[list[TokenizedExample], int]:
        asked = [format_query(*pair) for pair in zip(table["instruction"], table["query"], strict=True)]
        columns = [asked, table["positive"], *zip(*table["negatives"], strict=True)]
        read = [self.tokenizer(list(column), truncation=True, max_length=self.max_length) for column in columns]
        cut = sum(bool(encoding.overflowing) for column in read for encoding in column.encodings)
        plain = [table["query"], *columns[1:]]
        triples = [
            TokenizedExample(
                row_id,
                tuple(np.array(column.input_ids[place], dtype=np.int32) for column in read),
                tuple(text_hash(texts[place]) for texts in plain),
            )
            for place, row_id in enumerate(table["id"])
        ]
        return triples, cut


class RowCache:
    """The rows of one window, and those that windows before it left over, by place."""

    def __init__(self, corpus: Corpus, places: np.ndarray | None = None, table: pa.Table | None = None) -> None:
        self.corpus = corpus
        self.places = np.array([], dtype=np.int64) if places is None else places
        self.table = table

    def moved_on(self, wanted: np.ndarray) -> "RowCache":
        """Keep those wanted rows that are here, read the shards of the others, and let go of the rest."""
        here = np.flatnonzero(np.isin(self.places, wanted))
        missing = wanted[~np.isin(wanted, self.places)]
        tables = [self.table.take(here)] if self.table is not None and len(here) else []
        places = [self.places[here]]
        for shard in np.unique(missing >> ROW_BITS).tolist():
            tables.append(self.corpus.table(shard))
            places.append(np.arange(len(tables[-1]), dtype=np.int64) + (shard << ROW_BITS))
        return self._sorted(np.concatenate(places), pa.concat_tables(tables).combine_chunks())

    def rows(self, places: np.ndarray) -> pa.Table:
        """Return the rows of some places, in their order."""
        assert self.table is not None
        return self.table.take(np.searchsorted(self.places, places))

    def ids(self, places: np.ndarray) -> list[str]:
        """Return the row ids of some places, in their order."""
        assert self.table is not None
        ids: list[str] = self.table["id"].take(np.searchsorted(self.places, places)).to_pylist()
        return ids

    def _sorted(self, places: np.ndarray, table: pa.Table) -> "RowCache":
        # A row that was kept may be read again with its shard, when a resumed training had not kept its neighbours.
        unique, first = np.unique(places, return_index=True)
        return RowCache(self.corpus, unique, table.take(first))


def hash_chain(before: str, row_ids: Sequence[str]) -> str:
    """Hash all batches so far: two trainings with the same hash saw the same rows in the same batches and order."""
    return hashlib.sha256("\n".join([before, *row_ids]).encode()).hexdigest()[:16]
