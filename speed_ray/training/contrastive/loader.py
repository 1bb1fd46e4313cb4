"""Load this worker's rows of each batch from committed shards, tokenized and prefetched in a thread.

Memory holds one window of shards as Arrow tables and a few batches of token ids, however many rows there are.
"""

import hashlib
import math
import queue
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from transformers import PreTrainedTokenizerBase

from speed_ray.errors import Interrupted
from speed_ray.records import EXAMPLE
from speed_ray.storage.shards import RECORDS, Artifact
from speed_ray.training import distributed, plan
from speed_ray.training.contrastive.batches import ROW_BITS, Batch, BatchGroup, RowsByGroup, WindowBatches
from speed_ray.training.contrastive.encoder import TextPrompts
from speed_ray.training.contrastive.judge_scores import NO_TARGET, SCORES, JudgeScale
from speed_ray.training.contrastive.train_step import TokenizedExample, text_hash

COLUMNS = ("id", "kind", "instruction", "query", "positive", "negatives")
FURTHER = "further_positives"  # a column of scored rows
PREFETCH_BATCHES = 4


@dataclass(frozen=True)
class LocalBatch:
    """This worker's rows of one global batch. `row_ids` and `kinds` are those of the global batch, in its order.

    Every worker has equally many rows: where the batch cannot be divided so, the last are copies of its last row.
    `cut` counts this worker's texts that were truncated; `instructed` is true where one of its queries has an
    instruction.
    """

    no_in_batch_negatives: bool
    rows: list[TokenizedExample]
    cut: int
    instructed: bool
    row_ids: list[str]
    kinds: list[str]


@dataclass
class Corpus:
    """Reads the training rows of an artifact, shard by shard."""

    artifact: Artifact
    no_in_batch_negatives: Sequence[str]  # kinds
    files: Sequence[str] | None  # of a published artifact, those with rows; None while shards are being committed
    columns: Sequence[str] = COLUMNS
    excluded: Counter[str] = field(default_factory=Counter)  # rows by kind with nothing to contrast with
    _committed: dict[int, str | None] = field(default_factory=dict)  # file of each shard that was read, None without

    def _path(self, shard: int) -> str | None:
        """Return the shard's file, the same one for as long as this process reads; None where it has no record."""
        if self.files is not None:
            return self.files[shard]
        if shard not in self._committed:
            commit = self.artifact.commit_of(shard)
            if commit is None:
                raise Interrupted(
                    f"Shard {shard} of {self.artifact.where} was withdrawn while its rows were to be trained on.\n"
                    "Run the job that makes it again, then this command."
                )
            self._committed[shard] = commit.files[RECORDS].path if RECORDS in commit.files else None
        return self._committed[shard]

    def table(self, shard: int) -> pa.Table:
        """Read the rows of a shard, without held-out ones."""
        path = self._path(shard)
        if path is None:  # every row was rejected
            return EXAMPLE.empty_table().select(self.columns)
        return plan.read_training_rows(self.artifact, path).select(self.columns)

    def groups(self, shard: int) -> RowsByGroup:
        """Group the rows of a shard by kind and number of texts: their numbers in `table`, int32 (rows,).

        Rows without negatives are left out where in-batch negatives are off, and counted: there is nothing to contrast
        them with.
        """
        table = self.table(shard)
        kinds = np.array(table["kind"].to_pylist(), dtype=object)
        negatives, further = _lengths(table, "negatives"), _lengths(table, FURTHER)
        groups: dict[BatchGroup, np.ndarray] = {}
        for kind, count, more in sorted(set(zip(kinds.tolist(), negatives.tolist(), further.tolist(), strict=True))):
            group = BatchGroup(kind, count, kind in self.no_in_batch_negatives, 1 + more)
            rows = np.flatnonzero((kinds == kind) & (negatives == count) & (further == more)).astype(np.int32)
            if count or not group.no_in_batch_negatives:
                groups[group] = rows
            else:
                self.excluded[kind] += len(rows)
        return groups


def _lengths(table: pa.Table, column: str) -> np.ndarray:
    """Return how many texts each row has in a column, int64 (rows,): none where there is no such column."""
    if column not in table.column_names:
        return np.zeros(len(table), dtype=np.int64)
    return np.array(pc.list_value_length(table[column]).to_pylist(), dtype=np.int64)


@dataclass
class BatchReader:
    """Reads, tokenizes and prefetches this worker's rows of each batch."""

    corpus: Corpus
    tokenizer: PreTrainedTokenizerBase
    max_length: int  # tokens
    prompts: TextPrompts
    judge: JudgeScale | None = None  # whose scores the rows have
    with_texts: bool = False  # for a guide
    _queue: "queue.Queue[LocalBatch | BaseException | None]" = field(
        default_factory=lambda: queue.Queue(PREFETCH_BATCHES)
    )
    _closed: threading.Event = field(default_factory=threading.Event)

    def local_batches(self, windows: Iterable[WindowBatches], skip: int) -> Iterator[LocalBatch]:
        """Yield this worker's rows of each batch after the first `skip`; closing it ends the prefetch thread."""
        threading.Thread(target=self._prefetch, args=(windows, skip), daemon=True).start()
        try:
            while (batch := self._queue.get()) is not None:
                if isinstance(batch, BaseException):
                    raise batch
                yield batch
        finally:
            self._closed.set()

    def _prefetch(self, windows: Iterable[WindowBatches], skip: int) -> None:
        try:
            for batch in self._read(windows, skip):
                self._put(batch)
                if self._closed.is_set():
                    return
            self._put(None)
        except BaseException as error:
            self._put(error)

    def _put(self, batch: LocalBatch | BaseException | None) -> None:
        while not self._closed.is_set():
            try:
                return self._queue.put(batch, timeout=1)
            except queue.Full:
                continue

    def _read(self, windows: Iterable[WindowBatches], skip: int) -> Iterator[LocalBatch]:
        cache = RowCache(self.corpus)
        for window in windows:
            wanted = window.batches[skip:]
            skip -= len(window.batches) - len(wanted)
            if wanted:
                rows = [batch.rows for batch in wanted] + list(window.leftover.values())
                cache = cache.advance(np.concatenate(rows))
            for batch in wanted:
                yield self._local_batch(batch, cache)

    def _local_batch(self, batch: Batch, cache: "RowCache") -> LocalBatch:
        size = math.ceil(len(batch.rows) / distributed.world_size())
        first = distributed.rank() * size
        places = np.minimum(np.arange(first, first + size), len(batch.rows) - 1)
        table = cache.take(batch.rows[places], self.corpus.columns).to_pydict()
        rows, cut = self._tokenize(table, max(0, min(size, len(batch.rows) - first)))
        names = cache.take(batch.rows, ["id", "kind"]).to_pydict()
        return LocalBatch(
            batch.no_in_batch_negatives, rows, cut, any(table["instruction"]), names["id"], names["kind"]
        )

    def _tokenize(self, table: dict[str, list[Any]], counted: int) -> tuple[list[TokenizedExample], int]:
        """Tokenize rows, and count the texts that were cut among the first `counted` of them."""
        queries = [
            self.prompts.format_query(instruction, query)
            for instruction, query in zip(table["instruction"], table["query"], strict=True)
        ]
        further = list(zip(*table.get(FURTHER, ()), strict=True))
        plain = [table["query"], table["positive"], *further, *zip(*table["negatives"], strict=True)]
        columns = [queries, *([self.prompts.document + text for text in texts] for texts in plain[1:])]
        encoded = [self.tokenizer(column, truncation=True, max_length=self.max_length) for column in columns]
        cut = sum(bool(encoding.overflowing) for column in encoded for encoding in column.encodings[:counted])
        judge = self.judge
        targets = [judge.target(scores) for scores in table[SCORES]] if judge else [NO_TARGET] * len(queries)
        rows = [
            TokenizedExample(
                row_id,
                tuple(np.array(column.input_ids[index], dtype=np.int32) for column in encoded),
                tuple(text_hash(texts[index]) for texts in plain),
                targets[index],
                tuple(texts[index] for texts in plain) if self.with_texts else (),
                1 + len(further),
            )
            for index, row_id in enumerate(table["id"])
        ]
        return rows, cut


@dataclass(frozen=True)
class RowCache:
    """Keeps the rows of one window, and those left over by earlier windows, sorted by row index, int64 (rows,)."""

    corpus: Corpus
    indices: np.ndarray = field(default_factory=lambda: np.array([], dtype=np.int64))
    table: pa.Table | None = None

    def advance(self, wanted: np.ndarray) -> "RowCache":
        """Return a cache of the rows with indices `wanted` (rows,): keep those here, read the shards of the others."""
        kept = np.flatnonzero(np.isin(self.indices, wanted))
        missing = wanted[~np.isin(wanted, self.indices)]
        tables = [self.table.take(kept)] if self.table is not None and len(kept) else []
        indices = [self.indices[kept]]
        for shard in np.unique(missing >> ROW_BITS).tolist():
            tables.append(self.corpus.table(shard))
            indices.append(np.arange(len(tables[-1]), dtype=np.int64) + (shard << ROW_BITS))
        # A row that was kept may be read again with its shard, when a resumed training had not kept its neighbours.
        unique, first = np.unique(np.concatenate(indices), return_index=True)
        return RowCache(self.corpus, unique, pa.concat_tables(tables).combine_chunks().take(first))

    def take(self, indices: np.ndarray, columns: Sequence[str]) -> pa.Table:
        """Return the rows with indices (rows,), in their order. Raises Interrupted where a shard lacks one of them."""
        assert self.table is not None
        places = np.searchsorted(self.indices, indices)
        found = self.indices[np.minimum(places, len(self.indices) - 1)] == indices
        if not found.all():
            shard, row = divmod(int(indices[~found][0]), 1 << ROW_BITS)
            raise Interrupted(
                f"{self.corpus.artifact.where} has no row {row} in shard {shard} any more: the shard was made anew "
                "while its rows were trained on.\nRun the same command again: it draws batches of the rows there are."
            )
        return self.table.select(columns).take(places)


def hash_chain(previous: str, row_ids: Sequence[str]) -> str:
    """Extend the hash of all batches so far by one: equal hashes mean the same rows in the same batches and order."""
    return hashlib.sha256("\n".join([previous, *row_ids]).encode()).hexdigest()[:16]
