"""Read a user's own queries with their passages, which prompts about other passages show as examples."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from speed_ray.errors import UserError
from speed_ray.kinds.kind import Shot
from speed_ray.text import tables

FORM = "query"  # of what is written after such examples: like theirs
COLUMNS = {"query": ("query", "question", "anchor"), "passage": ("passage", "positive", "text")}
KEY = "corpus.examples"


class OwnExamples(NamedTuple):
    """Hold the examples with the digest of what they say."""

    shots: tuple[Shot, ...] = ()
    digest: str | None = None


def read_own_examples(path: str | None) -> OwnExamples:
    """Read a table of queries and passages. Raises UserError with the key, the file and the faulty lines."""
    if path is None:
        return OwnExamples()
    file, name = Path(path), f"{KEY}: {path}"
    reader = tables.READERS.get(tables.file_format(file))
    if reader is None or reader is tables.read_text:
        raise UserError(f"{name} is no table: give a .jsonl, .csv, .tsv or .parquet with columns query and passage.")
    shots, faults = [], []
    for line, row in _rows(tables.read_file(file, name, reader)):
        query, passage = (_cell(row, COLUMNS[side]) for side in ("query", "passage"))
        if not query or not passage:
            faults.append(f"line {line}: there is no {'passage' if query else 'query'}, or it is no text")
        else:
            shots.append(Shot(passage, {FORM: query}))
    tables.refuse_faults(name, faults)
    if not shots:
        raise UserError(f"{name} holds no example. Leave the key out, or write a query and its passage into the file.")
    said = repr([(shot.passage, shot.lines) for shot in shots])
    return OwnExamples(tuple(shots), hashlib.sha256(said.encode()).hexdigest())


def _rows(lines: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Give the cells of a table the names in its heading; rows of JSON and Parquet have their own."""
    heading: list[str] | None = None
    for line, row in lines:
        if isinstance(row, dict):
            yield line, row
        elif heading is None:
            heading = [cell.strip().lower() for cell in row]
        else:
            yield line, dict(zip(heading, row, strict=False))


def _cell(row: dict[str, Any], names: tuple[str, ...]) -> str:
    """Return a row's text in one line, "" where it has none under these names."""
    value = next((row[name] for name in names if row.get(name)), "")
    return " ".join(value.split()) if isinstance(value, str) else ""
