"""Scan all examples: compute the per-row features (filter result, hashes, MinHash sketch) that global decisions need.

Each input shard is scanned alone, in processes of this machine where there are many rows. A million rows take well
under a minute, sketches included, so this needs no cluster; what needs one is an embedder.
"""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from itertools import islice
from typing import Any

import numpy as np

from speed_ray.curation import filters
from speed_ray.curation.contamination import EvaluationNgrams
from speed_ray.curation.near_duplicates import Flags, Sketches, sketch
from speed_ray.curation.quotas import held_out
from speed_ray.engines import parent_watchdog
from speed_ray.errors import Interrupted
from speed_ray.recipes.curate_settings import Curate
from speed_ray.records import Row
from speed_ray.storage.run import Run
from speed_ray.storage.shards import Artifact
from speed_ray.text import token_hashes
from speed_ray.text.rules import is_plain
from speed_ray.text.token_hashes import Hashes, Words
from speed_ray.text.words import unify

ROWS_FOR_PROCESSES = 20_000  # from which processes pay: each takes a second to start


@dataclass(frozen=True)
class RowFeatures:
    """Hold the features of some rows, in order: (rows,) each."""

    passed: Flags  # the filters
    held_out: Flags
    texts: Hashes  # of query and positive in one form of Unicode, character by character
    labels: Hashes  # 0 where the row has none
    sketches: Sketches


@dataclass(frozen=True)
class Rules:
    """Hold filter settings and evaluation n-grams; sent once to each worker process."""

    settings: Curate
    evaluation: EvaluationNgrams

    def reject_reasons(self, rows: list[Row]) -> dict[int, tuple[str, str]]:
        """Map the index of each row that a filter rejects to (reason, detail)."""
        return filters.reject_reasons(rows, _hash_words(rows), self.settings, self.evaluation)

    def scan(self, rows: list[Row]) -> RowFeatures:
        """Compute the features of one shard's rows."""
        words = _hash_words(rows)
        rejected = filters.reject_reasons(rows, words, self.settings, self.evaluation)
        tasks = {task: held_out(task, self.settings.held_out) for task in {row["parent_id"] for row in rows}}
        return RowFeatures(
            passed=np.array([index not in rejected for index in range(len(rows))], bool),
            held_out=np.array([tasks[row["parent_id"]] for row in rows], bool),
            texts=hash_texts([unify(f"{row['query']}\0{row['positive']}") for row in rows]),
            labels=_labels(rows),
            sketches=sketch(Words(words.hashes, words.owners >> 1, len(rows))),
        )


def _labels(rows: list[Row]) -> Hashes:
    labelled = [index for index, row in enumerate(rows) if row["kind"] in filters.kinds_with_labels()]
    labels = np.zeros(len(rows), np.uint64)
    labels[labelled] = hash_texts([is_plain(rows[index]["positive"]) for index in labelled])
    return labels


def scan_rows(source: Artifact, rules: Rules) -> Iterator[RowFeatures]:
    """Compute the features of all records of a published artifact, a shard at a time, in order."""
    files = list(source.record_files().values())
    paths = [file.path for file in files]
    if sum(file.rows for file in files) < ROWS_FOR_PROCESSES:
        yield from (rules.scan(rows_of(source, path)) for path in paths)
        return
    workers = len(os.sched_getaffinity(0))
    start = (source.store.uri, source.name, rules, os.getpid())
    context = multiprocessing.get_context("spawn")  # obstore has threads, which a fork does not take along
    with ProcessPoolExecutor(workers, context, initializer=_begin, initargs=start) as pool:
        yield from _in_order(pool, iter(paths), 2 * workers)


def rows_of(source: Artifact, path: str) -> list[Row]:
    """Read the columns of one file that are scanned."""
    columns = ["parent_id", "kind", "language", "query", "positive", "negatives"]
    rows: list[Row] = source.read(path).select(columns).to_pylist()
    return rows


def _in_order(pool: ProcessPoolExecutor, paths: Iterator[str], at_once: int) -> Iterator[RowFeatures]:
    waiting: deque[Future[RowFeatures]] = deque(pool.submit(_features, path) for path in islice(paths, at_once))
    try:
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(_features, path) for path in islice(paths, 1))
    except BaseException as error:
        pool.shutdown(wait=False, cancel_futures=True)
        if isinstance(error, multiprocessing.ProcessError | RuntimeError):  # BrokenProcessPool is one of these
            raise Interrupted(
                f"a process that scanned examples was lost: {error}\nRun the same command again."
            ) from None
        raise


_scan_path: Any = None  # of a worker process: scans the shard at a path


def _begin(uri: str, name: str, rules: Rules, parent: int) -> None:
    global _scan_path
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to answer
    parent_watchdog.start_watchdog(parent)
    _scan_path = partial(_features_of, Run(uri).artifact(name), rules)


def _features(path: str) -> RowFeatures:
    found: RowFeatures = _scan_path(path)
    return found


def _features_of(source: Artifact, rules: Rules, path: str) -> RowFeatures:
    return rules.scan(rows_of(source, path))


def _hash_words(rows: list[Row]) -> Words:
    return token_hashes.hash_tokens([text for row in rows for text in (row["query"], row["positive"])])


def hash_texts(texts: list[str]) -> Hashes:
    """Hash each text to 64 bits: among a million texts two share a hash with a chance of 3e-8. -> (texts,)"""
    return np.frombuffer(b"".join([blake2b(text.encode(), digest_size=8).digest() for text in texts]), np.uint64)
