"""Evaluation sets as people keep them: STS and classification tables, and BEIR folders. Read whole, and checked first.

STS                text, text, score            a CSV or TSV line each
classification     text, label                  likewise; a heading `text,label` or `text,category` may stand first
BEIR               corpus.jsonl {_id, title, text}; queries.jsonl {_id, text}; qrels/<split>.tsv query, document, score
"""

import csv
import json
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from speed_ray.errors import UserError

SHOWN = 5  # faults of one file
HEADINGS = {("text", "label"), ("text", "category"), ("sentence1", "sentence2", "score")}


@dataclass(frozen=True)
class Pairs:
    """An STS set: two texts and how alike they are, by people, on any scale."""

    first: list[str]
    second: list[str]
    scores: list[float]


@dataclass(frozen=True)
class Labelled:
    """A classification set."""

    texts: list[str]
    labels: list[str]


@dataclass(frozen=True)
class Retrieval:
    """A BEIR set: documents and queries by id, and how relevant which is to which (0 is not at all).

    `unanswered` counts the queries without a relevant document, which no score can be given for; they are left out.
    """

    documents: dict[str, str]
    queries: dict[str, str]
    relevant: dict[str, dict[str, int]]
    unanswered: int


def read_pairs(path: Path) -> Pairs:
    """Read an STS file. Raises UserError with the line."""
    rows = list(_table(path, 3))
    scores = []
    for line, (_, _, score) in rows:
        try:
            scores.append(float(score))
        except ValueError:
            scores.append(math.nan)
        if not math.isfinite(scores[-1]):
            raise UserError(f"{path}, line {line}: {score!r} is not a score")
    if len(set(scores)) < 2:
        raise UserError(f"{path} has only the score {scores[0]:g}: there is nothing to correlate with")
    return Pairs([row[0] for _, row in rows], [row[1] for _, row in rows], scores)


def read_labelled(path: Path) -> Labelled:
    """Read a classification file. Raises UserError with the line, or where there is only one label."""
    rows = list(_table(path, 2))
    labels = [label for _, (_, label) in rows]
    if len(set(labels)) < 2:
        raise UserError(f"{path} has only the label {labels[0]!r}: there is nothing to tell apart")
    return Labelled([text for _, (text, _) in rows], labels)


def read_retrieval(folder: Path, split: str = "test") -> Retrieval:
    """Read a BEIR folder. Raises UserError for files and ids that are missing, and for documents without a text."""
    needed = ("corpus.jsonl", "queries.jsonl", f"qrels/{split}.tsv")
    if missing := [name for name in needed if not (folder / name).is_file()]:
        raise UserError(f"{folder} is no BEIR folder: it has no {', no '.join(missing)}")
    documents = _documents(folder / "corpus.jsonl")
    queries = {row["_id"]: str(row.get("text") or "") for _, row in _json_lines(folder / "queries.jsonl")}
    relevant = _relevant(folder / f"qrels/{split}.tsv", queries, documents)
    answered = {query: found for query, found in relevant.items() if any(score > 0 for score in found.values())}
    if not answered:
        raise UserError(f"{folder}/qrels/{split}.tsv names no relevant document, so no query can be scored")
    asked = {query: queries[query] for query in answered}
    return Retrieval(documents, asked, answered, len(queries) - len(asked))


def _documents(path: Path) -> dict[str, str]:
    documents, faults = {}, []
    for line, row in _json_lines(path):
        documents[row["_id"]] = text = f"{row.get('title') or ''} {row.get('text') or ''}".strip()
        if not text:
            faults.append(f"line {line}: document {row['_id']!r} has neither title nor text")
    _refuse(path, faults)
    return documents


def _relevant(path: Path, queries: dict[str, str], documents: dict[str, str]) -> dict[str, dict[str, int]]:
    relevant: dict[str, dict[str, int]] = defaultdict(dict)
    faults = []
    for line, (query, document, score) in _table(path, 3):
        if not score.lstrip("-").isdigit():
            if line > 1:  # the first is its heading
                faults.append(f"line {line}: {score!r} is not a whole number")
            continue
        for name, known, where in ((query, queries, "queries"), (document, documents, "corpus")):
            if name not in known:
                faults.append(f"line {line}: {name!r} is not in {where}.jsonl")
        relevant[query][document] = int(score)
    _refuse(path, faults)
    return relevant


def _refuse(path: Path, faults: list[str]) -> None:
    """Name the first faults of a file, and say how many there are."""
    if faults:
        more = [f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
        raise UserError("\n".join([*(f"{path}, {fault}" for fault in faults[:SHOWN]), *more]))


def _table(path: Path, columns: int) -> Iterator[tuple[int, list[str]]]:
    """The lines of a CSV or TSV file that are not its heading, each with its number."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    found = False
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        try:
            for row in reader:
                if len(row) != columns:
                    raise UserError(f"{path}, line {reader.line_num}: {len(row)} columns, and {columns} are wanted")
                if reader.line_num == 1 and tuple(cell.lower() for cell in row) in HEADINGS:
                    continue
                found = True
                yield reader.line_num, row
        except (csv.Error, UnicodeDecodeError) as error:
            raise UserError(f"{path}, after line {reader.line_num}: {error}") from None
    if not found:
        raise UserError(f"{path} is empty")


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
                row["_id"] = str(row["_id"])  # qrels hold text alone
            except (ValueError, KeyError, TypeError):  # JSONDecodeError and UnicodeDecodeError are ValueErrors
                raise UserError(f"{path}, line {number}: no JSON object with an _id in UTF-8") from None
            yield number, row
