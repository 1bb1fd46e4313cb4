"""Describe a table of an export, and write one as Parquet or as JSON lines, by split."""

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from speed_ray.records import Row

GROUP_ROWS, GROUP_BYTES = 10_000, 32 << 20  # of a row group, which a reader of a few rows has to load whole
FILE_BYTES = 256 << 20  # of a file, from which the next one begins


@dataclass
class ExportedTable:
    """Hold what was written of one table: its rows by split, and where their files are.

    `pattern` holds `{split}`. Without `loads` the table is none of those that `datasets.load_dataset` is told of.
    """

    name: str
    pattern: str
    rows: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)  # rows, by why
    loads: bool = True

    def describe(self) -> list[str]:
        """Say how many rows each split has, and what was left out."""
        splits = " + ".join(f"{count:,} rows of {split}" for split, count in self.rows.items())
        left_out = [f"  left out: {count:,} of {why}" for why, count in sorted(self.left_out.items())]
        return [f"{self.name}: {splits or 'no rows'}", *left_out]


class ParquetSplits:
    """Writes rows by split into numbered Parquet files with small row groups, an index of pages and checksums.

    Pages are cut by content, so that the hub stores again only what has changed.
    """

    def __init__(self, folder: Path, table: ExportedTable) -> None:
        self._folder, self._table = folder, table
        self._waiting: dict[str, list[pa.Table]] = {}
        self._writers: dict[str, tuple[pq.ParquetWriter, Path]] = {}
        self._files: Counter[str] = Counter()

    def add(self, split: str, rows: pa.Table) -> None:
        """Add rows; they are written once they fill a row group."""
        self._table.rows[split] += len(rows)
        waiting = self._waiting.setdefault(split, [])
        waiting.append(rows)
        if sum(map(len, waiting)) >= GROUP_ROWS or sum(part.nbytes for part in waiting) >= GROUP_BYTES:
            self._write(split)

    def __enter__(self) -> "ParquetSplits":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for split in self._waiting:
            if kind is None:
                self._write(split)
            if opened := self._writers.pop(split, None):
                opened[0].close()

    def _write(self, split: str) -> None:
        if not (waiting := self._waiting[split]):
            return
        writer, path = self._writers.get(split) or self._begin(split, waiting[0].schema)
        writer.write_table(pa.concat_tables(waiting), row_group_size=GROUP_ROWS)
        waiting.clear()
        if path.stat().st_size >= FILE_BYTES:
            self._writers.pop(split)[0].close()

    def _begin(self, split: str, schema: pa.Schema) -> tuple[pq.ParquetWriter, Path]:
        name = self._table.pattern.format(split=split).replace("*", f"{self._files[split]:05d}")
        self._files[split] += 1
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = pq.ParquetWriter(
            path,
            schema,
            compression="zstd",
            write_page_index=True,
            write_page_checksum=True,
            use_content_defined_chunking=True,
        )
        self._writers[split] = writer, path
        return writer, path


class JsonLines:
    """Writes rows by split as JSON lines, one file a split, which begins with its first row."""

    def __init__(self, folder: Path, table: ExportedTable) -> None:
        self._folder, self._table = folder, table
        self._files: dict[str, BinaryIO] = {}
        self._open = ExitStack()

    def add(self, split: str, row: Row) -> None:
        """Write one row."""
        if split not in self._files:
            path = self._folder / self._table.pattern.format(split=split)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._files[split] = self._open.enter_context(path.open("wb"))
        self._table.rows[split] += 1
        self._files[split].write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))

    def __enter__(self) -> "JsonLines":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
