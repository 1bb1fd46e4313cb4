"""Read text, CSV, TSV, JSON lines and Parquet as rows, each with the number of its line.

Python's csv and json, not pyarrow's: pyarrow.csv refuses a line that has a cell too few, and pyarrow.json guesses
types from the first block. Parquet is read by pyarrow, on this thread alone: Arrow's may abort a process that ends.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from speed_ray.errors import UserError

Json = dict[str, Any]
Reader = Callable[[BinaryIO, str], Iterator[tuple[int, Any]]]


def read_text(file: BinaryIO, name: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each line of a UTF-8 text as a row of one cell. Raises UserError with `name` and the line."""
    number = 0
    try:
        for number, line in enumerate(io.TextIOWrapper(file, "utf-8-sig"), start=1):
            yield number, [line]
    except UnicodeDecodeError as error:
        raise _not_utf8(name, number, error) from None


def read_csv(file: BinaryIO, name: str, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each CSV row with the line that it ends on. Raises UserError with `name` and the line."""
    rows = csv.reader(io.TextIOWrapper(file, "utf-8-sig", newline=""), delimiter=delimiter)
    try:
        for row in rows:
            yield rows.line_num, row
    except csv.Error as error:
        raise UserError(f"{name}, line {rows.line_num}: this is not a CSV file: {error}") from None
    except UnicodeDecodeError as error:
        raise _not_utf8(name, rows.line_num, error) from None


def read_tsv(file: BinaryIO, name: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each row of a tab-separated table, as `read_csv` does."""
    return read_csv(file, name, "\t")


def read_json_lines(file: BinaryIO, name: str) -> Iterator[tuple[int, Json]]:
    """Yield the JSON object of each line. Raises UserError with `name` and the line."""
    for number, line in enumerate(file, start=1):
        try:
            row = json.loads(line)
        except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
            raise UserError(f"{name}, line {number}: this is not JSON in UTF-8: {error}") from None
        if not isinstance(row, dict):
            raise UserError(f"{name}, line {number}: this is not a JSON object")
        yield number, row


def read_parquet(file: BinaryIO, name: str) -> Iterator[tuple[int, Json]]:
    """Yield the rows of a Parquet file, numbered from 1. Raises UserError with `name`."""
    number = 0
    try:
        table = pq.ParquetFile(file, pre_buffer=False, page_checksum_verification=True)
        for batch in table.iter_batches(use_threads=False):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{name} is not a Parquet file, or is damaged after row {number}: {error}") from None


READERS: dict[str, Reader] = {  # by the ending of a file's name
    ".txt": read_text,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".jsonl": read_json_lines,
    ".parquet": read_parquet,
}


def _not_utf8(name: str, line: int, error: UnicodeDecodeError) -> UserError:
    return UserError(f"{name}, after line {line}: this is not UTF-8 text ({error}). Save it as UTF-8.")
