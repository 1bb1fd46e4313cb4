"""Read the rows of a table of documents: JSON lines, CSV, TSV or Parquet, gzipped where the name says so."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from speed_ray.documents.faults import CUT_OFF, MAX_BYTES, Fault, decode, too_large
from speed_ray.errors import UserError
from speed_ray.recipes.corpus_settings import Columns
from speed_ray.text import tables
from speed_ray.text.tables import Json

FORMATS = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")


def read_table_rows(path: Path) -> Iterator[tuple[int, Json | Fault]]:
    """Yield each row, or its fault, with the number of its line. Raises Fault where the rest cannot be read."""
    form = tables.file_format(path)
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            if form in (".jsonl", ".ndjson"):
                yield from _json_lines(file)  # type: ignore[arg-type]  # GzipFile reads as a BinaryIO does
            elif form == ".parquet":
                yield from tables.read_parquet(file, path.name)  # type: ignore[arg-type]
            else:
                yield from _named_cells(file, form)  # type: ignore[arg-type]
    except (UserError, OSError, EOFError, zlib.error) as error:
        said = getattr(error, "strerror", None) or error
        raise Fault(CUT_OFF, f"{said}; what follows is not read") from None


def pick_columns(row: Json, columns: Columns) -> tuple[str, str, str]:
    """Return id, title and text of a row; "" for an id or a title that is not there. Raises Fault without a text."""
    if columns.text not in row:
        names = ", ".join(map(str, row))[:200]
        raise Fault("no_text", f"it has no {columns.text!r} (it has: {names}); corpus.columns.text names the column")
    document_id = row.get(columns.id)
    if document_id is None:
        document_id = row.get("id")
    return (
        _cell(document_id, columns.id),
        _cell(row.get(columns.title), columns.title),
        _cell(row[columns.text], columns.text),
    )


def _cell(value: object, column: str) -> str:
    if value is None or value != value:  # NaN, by which pandas says that a cell is empty
        return ""
    if isinstance(value, list | dict | bytes):
        raise Fault("no_text", f"{column!r} holds a {type(value).__name__}, not a text")
    text = str(value)
    if len(text) > MAX_BYTES:
        raise too_large("cell")
    return text


def _json_lines(file: BinaryIO) -> Iterator[tuple[int, Json | Fault]]:
    number = 0
    while line := file.readline(MAX_BYTES + 1):
        number += 1
        if len(line) > MAX_BYTES:
            while line and not line.endswith(b"\n"):
                line = file.readline(1 << 20)
            yield number, too_large("line")
        elif line.strip():
            yield number, _json_object(line)


def _json_object(line: bytes) -> Json | Fault:
    try:
        text = decode(line)
        row = json.loads(text)
    except Fault as fault:
        return fault
    except (ValueError, RecursionError) as error:
        return Fault("not_json", str(error))
    if not isinstance(row, dict):
        return Fault("not_json", "the line is no JSON object")
    # Only an escape can write one: UTF-8 was checked.
    if b"\\ud" in line.lower() and (lone := tables.lone_surrogate(json.dumps(row, ensure_ascii=False))):
        return Fault("not_utf8", f"{lone} is half of a character")
    return row


def _named_cells(file: BinaryIO, form: str) -> Iterator[tuple[int, Json]]:
    rows = tables.READERS[form](file, "the table")
    _, header = next(rows, (0, ()))
    for line, cells in rows:
        yield line, dict(zip(header, cells, strict=False))
