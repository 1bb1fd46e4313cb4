"""Read text, CSV, TSV, JSON lines and Parquet as rows, each with the number of its line; gzipped where a name says so.

A blank line is no row, but for text, and a byte order mark is no part of the first. A TSV has no quotes: what looks
like one is a letter of its text, as in STS-B's own files, where a reader of quotes swallows lines.

Python's csv and json, not pyarrow's: pyarrow.csv refuses a line that has a cell too few, and pyarrow.json guesses
types from the first block. Parquet is read by pyarrow, on this thread alone: Arrow's may abort a process that ends.
"""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from speed_ray.errors import UserError

Json = dict[str, Any]
Reader = Callable[[BinaryIO, str], Iterator[tuple[int, Any]]]

BYTE_ORDER_MARK = "\ufeff".encode()
LONE_SURROGATE = re.compile("[\ud800-\udfff]")
MAX_LINE = 50 << 20  # characters
MAX_FAULTS_SHOWN = 5  # of one file


def file_format(path: Path) -> str:
    """Return the ending that says how a file is read, in lower case: of `corpus.jsonl.gz` it is `.jsonl`."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def read_file(path: Path, name: str, reader: Reader) -> Iterator[tuple[int, Any]]:
    """Yield the rows of a file, gzipped where its name ends with `.gz`. Raises UserError with `name`."""
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            yield from reader(file, name)  # type: ignore[arg-type]  # GzipFile reads as a BinaryIO does
    except FileNotFoundError:
        raise UserError(f"{name}: there is no such file") from None
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{name} cannot be read: {error}") from None


def refuse_faults(name: str, faults: Sequence[str]) -> None:
    """Raise UserError with the first faults of a file and the number of the others, where there are any."""
    if faults:
        more = [f"and {len(faults) - MAX_FAULTS_SHOWN} more"] if len(faults) > MAX_FAULTS_SHOWN else []
        raise UserError("\n".join([*(f"{name}, {fault}" for fault in faults[:MAX_FAULTS_SHOWN]), *more]))


def lone_surrogate(text: str) -> str | None:
    r"""Return the first half of a character in a text, as `\ud83d`: JSON and YAML can write one, UTF-8 cannot."""
    found = None if text.isascii() else LONE_SURROGATE.search(text)
    return f"\\u{ord(found.group()):04x}" if found else None


def read_text(file: BinaryIO, name: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each line of a UTF-8 text as a row of one cell. Raises UserError with `name` and the line."""
    number = 0
    try:
        for number, line in enumerate(io.TextIOWrapper(file, "utf-8-sig"), start=1):
            yield number, [line]
    except UnicodeDecodeError as error:
        raise _not_utf8(name, number, error) from None


def read_csv(file: BinaryIO, name: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each CSV row with the line that it ends on. Raises UserError with `name` and the line.

    A quote that is not closed, or not where a cell begins and ends, is refused: it may have swallowed lines.
    """
    return _cells(file, name, "CSV", strict=True)


def read_tsv(file: BinaryIO, name: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each line of a tab-separated table. Raises UserError for one that is escaped as in CSV."""
    for line, row in _cells(file, name, "TSV", delimiter="\t", quoting=csv.QUOTE_NONE):
        for cell in row:
            if cell[:1] == cell[-1:] == '"' and '""' in cell[1:-1] and '"' not in cell[1:-1].replace('""', ""):
                raise UserError(f"{name}, line {line}: {cell} is quoted, and a TSV has no quotes. Save it as CSV.")
        yield line, row


def _cells(file: BinaryIO, name: str, what: str, **form: Any) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(MAX_LINE)  # of all readers of this process; 131,072 by default, which a document may have
    rows = csv.reader(_lines(io.TextIOWrapper(file, "utf-8-sig", newline="")), **form)
    try:
        for row in rows:
            if len(row) > 1 or "".join(row).strip():
                yield rows.line_num, row
    except csv.Error as error:
        raise UserError(f"{name}, line {rows.line_num}: this is not a {what} file: {error}") from None
    except UnicodeDecodeError as error:
        raise _not_utf8(name, rows.line_num, error) from None


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    while line := text.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE:
            raise csv.Error(f"a line is longer than {MAX_LINE >> 20} million characters")
        yield line


def read_json_lines(file: BinaryIO, name: str) -> Iterator[tuple[int, Json]]:
    """Yield the JSON object of each line. Raises UserError with `name` and the line."""
    for number, line in enumerate(file, start=1):
        if number == 1:
            line = line.removeprefix(BYTE_ORDER_MARK)
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
            raise UserError(f"{name}, line {number}: this is not JSON in UTF-8: {error}") from None
        if not isinstance(row, dict):
            raise UserError(f"{name}, line {number}: this is not a JSON object")
        # Only an escape can write one: UTF-8 was checked.
        if b"\\ud" in line.lower() and (lone := lone_surrogate(json.dumps(row, ensure_ascii=False))):
            raise UserError(f"{name}, line {number}: {lone} is half of a character. Write the whole one.")
        yield number, row


def read_parquet(file: BinaryIO, name: str) -> Iterator[tuple[int, Json]]:
    """Yield the rows of a Parquet file, numbered from 1. Raises UserError with `name`."""
    number = 0
    try:
        table = pq.ParquetFile(file, pre_buffer=False, page_checksum_verification=True)
        for batch in table.iter_batches(batch_size=256, use_threads=False):
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
