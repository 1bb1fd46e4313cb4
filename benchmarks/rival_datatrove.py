"""datatrove's MinHash deduplication of one folder of Parquet files or JSON lines, by its LocalPipelineExecutor.

    python -m benchmarks.rival_datatrove FOLDER [--spaces]

Its four stages as its documentation has them, two tasks and two workers in each, on word pairs: with its default of
five words it finds a third of these duplicates. Words are what its own tokenizer for English finds, spaCy's, which
takes most of the time; with `--spaces` they are split at spaces instead, which is enough for these documents, and
something that datatrove does not offer.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks import report

WORKERS = 2
ENGLISH = "eng_Latn"  # its default


class Spaces:
    """What stands for datatrove's word tokenizer with `--spaces`."""

    def word_tokenize(self, text: str) -> list[str]:
        """Split a text that has no punctuation."""
        return text.split()


def main() -> None:
    folder = Path(sys.argv[1])
    started = time.perf_counter()
    deduplicate(folder, Spaces() if "--spaces" in sys.argv else None)
    seconds = time.perf_counter() - started
    kept = [
        number for file in sorted(folder.glob("kept/*.parquet")) for number in pq.read_table(file)["id"].to_pylist()
    ]
    print(json.dumps({"seconds": seconds, "peak RSS MB": report.peak(), "kept": [int(number) for number in kept]}))


def deduplicate(folder: Path, words: Spaces | None) -> None:
    """Signatures, buckets, clusters, filter."""
    from datatrove.pipeline.dedup import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.readers import JsonlReader, ParquetReader
    from datatrove.pipeline.writers import ParquetWriter

    config = MinhashConfig(n_grams=2)
    signatures, buckets, remove = (str(folder / name) for name in ("signatures", "buckets", "remove"))
    reader = (JsonlReader if any(folder.glob("texts/*.jsonl")) else ParquetReader)(str(folder / "texts"))
    signature = MinhashDedupSignature(signatures, config, language=ENGLISH if words is None else "zho_Latn")
    if words is not None:  # English asks for spaCy at once
        signature.word_tokenizer = words
    stages: Iterator[tuple[list[Any], int]] = iter(
        [
            ([reader, signature], WORKERS),
            ([MinhashDedupBuckets(signatures, buckets, config=config)], config.num_buckets),
            ([MinhashDedupCluster(buckets, remove, config=config)], 1),
            ([reader, MinhashDedupFilter(remove), ParquetWriter(str(folder / "kept"))], WORKERS),
        ]
    )
    for number, (pipeline, tasks) in enumerate(stages):
        _execute(pipeline, tasks, folder / f"logs-{number}")


def _execute(pipeline: list[Any], tasks: int, logs: Path) -> None:
    from datatrove.executor import LocalPipelineExecutor

    LocalPipelineExecutor(pipeline, tasks=tasks, workers=min(tasks, WORKERS), logging_dir=str(logs)).run()


if __name__ == "__main__":
    main()
