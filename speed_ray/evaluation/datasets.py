"""Read evaluation sets: STS and classification tables, and BEIR folders. Each is read whole, and checked first.

STS                text, text, score            CSV or TSV; a heading `sentence1,sentence2,score` may stand first
classification     text, label                  likewise; the heading is `text,label` or `text,category`
BEIR               corpus.jsonl {_id, title, text}; queries.jsonl {_id, text}; qrels/<split>.tsv query, document, score
"""

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from speed_ray import __version__, kinds
from speed_ray.errors import UserError
from speed_ray.recipes.schema import Evaluate
from speed_ray.records import content_id
from speed_ray.text import tables

MINIATURE = "miniature://retrieval"
MAX_FAULTS_SHOWN = 5  # of one file
HEADINGS = {("text", "label"), ("text", "category"), ("sentence1", "sentence2", "score")}

TaskType = Literal["sts", "classification", "retrieval", "mteb"]
MAIN_SCORES: dict[TaskType, str] = {
    "sts": "spearman",
    "classification": "accuracy",
    "retrieval": "ndcg_at_10",
    "mteb": "main_score",
}
INSTRUCTIONS: dict[TaskType, str] = {
    "sts": kinds.load_kind("sts").instruction or "",  # the very words that it was trained with
    "classification": "Classify the text",
    "retrieval": "Given a question, find a passage that answers it",
}


@dataclass(frozen=True)
class StsSet:
    """Sentence pairs and their human similarity scores, on any scale."""

    first: list[str]
    second: list[str]
    scores: list[float]


@dataclass(frozen=True)
class LabelledSet:
    """Texts and their labels."""

    texts: list[str]
    labels: list[str]


@dataclass(frozen=True)
class RetrievalSet:
    """Documents and queries by id, and the relevance grade of document for query (0: not relevant).

    `unanswered` counts the queries without a relevant document: they cannot be scored and are left out of `queries`.
    """

    documents: dict[str, str]
    queries: dict[str, str]
    relevant: dict[str, dict[str, int]]
    unanswered: int


Dataset = StsSet | tuple[LabelledSet, LabelledSet] | RetrievalSet  # of labelled sets: train, test


@dataclass(frozen=True)
class EvaluationTask:
    """Name one thing that models are scored on. `digest` covers the data, the instruction and the scoring code."""

    kind: TaskType
    name: str
    sources: tuple[str, ...]  # absolute paths; of MTEB the recipe's entry that the task is of
    instruction: str | None  # None: MTEB's own
    digest: str


def local_tasks(wanted: Evaluate) -> list[EvaluationTask]:
    """List the recipe's STS, classification and retrieval sets, in its order. Raises UserError for a faulty set."""
    return [
        *(_task("sts", (each.path,), each.instruction) for each in wanted.sts),
        *(_task("classification", (each.train, each.test), each.instruction) for each in wanted.classification),
        *(_task("retrieval", (each.path,), each.instruction) for each in wanted.retrieval),
    ]


def _task(kind: TaskType, paths: tuple[str, ...], instruction: str | None) -> EvaluationTask:
    sources = tuple(path if path == MINIATURE else str(Path(path).expanduser().absolute()) for path in paths)
    prompt = INSTRUCTIONS[kind] if instruction is None else instruction
    digest = content_id(__version__, kind, prompt, _digest(load_dataset(kind, sources)))
    name = Path(sources[-1].replace("://", "-"))
    return EvaluationTask(kind, name.name if kind == "retrieval" else name.stem, sources, prompt, digest)


def load_dataset(kind: TaskType, sources: tuple[str, ...]) -> Dataset:
    """Read one set whole. Raises UserError."""
    if kind == "sts":
        return read_sts(Path(sources[0]))
    if kind == "classification":
        return read_labelled(Path(sources[0])), read_labelled(Path(sources[1]))
    if sources[0] == MINIATURE:
        from speed_ray.miniature import retrieval_set

        return RetrievalSet(*retrieval_set.draw_queries(), unanswered=0)
    return read_beir(Path(sources[0]))


def count_rows(dataset: Dataset) -> dict[str, int]:
    """Count a set's texts, and the queries that were left out of it."""
    if isinstance(dataset, StsSet):
        return {"pairs": len(dataset.scores)}
    if isinstance(dataset, RetrievalSet):
        sizes = {"documents": len(dataset.documents), "queries": len(dataset.queries)}
        return {**sizes, "queries_without_answer": dataset.unanswered}
    train, test = dataset
    return {"train": len(train.texts), "test": len(test.texts), "labels": len(set(train.labels))}


def read_sts(path: Path) -> StsSet:
    """Read an STS table. Raises UserError with the line."""
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
    return StsSet([row[0] for _, row in rows], [row[1] for _, row in rows], scores)


def read_labelled(path: Path) -> LabelledSet:
    """Read a classification table. Raises UserError with the line, or where there is only one label."""
    texts, labels = zip(*(row for _, row in _table(path, 2)), strict=True)
    if len(set(labels)) < 2:
        raise UserError(f"{path} has only the label {labels[0]!r}: there is nothing to tell apart")
    return LabelledSet(list(texts), list(labels))


def read_beir(folder: Path, split: str = "test") -> RetrievalSet:
    """Read a BEIR folder. Raises UserError for files and ids that are missing, and for documents without a text."""
    needed = ("corpus.jsonl", "queries.jsonl", f"qrels/{split}.tsv")
    if missing := [name for name in needed if not (folder / name).is_file()]:
        raise UserError(f"{folder} is no BEIR folder: it has no {', no '.join(missing)}")
    documents = _documents(folder / "corpus.jsonl")
    queries = {name: str(row.get("text") or "") for _, name, row in _json_lines(folder / "queries.jsonl")}
    relevant = _relevant(folder / f"qrels/{split}.tsv", queries, documents)
    answered = {query: found for query, found in relevant.items() if any(grade > 0 for grade in found.values())}
    if not answered:
        raise UserError(f"{folder}/qrels/{split}.tsv names no relevant document, so no query can be scored")
    kept = {query: queries[query] for query in answered}
    return RetrievalSet(documents, kept, answered, len(queries) - len(kept))


def _documents(path: Path) -> dict[str, str]:
    documents, faults = {}, []
    for line, name, row in _json_lines(path):
        documents[name] = text = f"{row.get('title') or ''} {row.get('text') or ''}".strip()
        if not text:
            faults.append(f"line {line}: document {name!r} has neither title nor text")
    _refuse(path, faults)
    return documents


def _relevant(path: Path, queries: dict[str, str], documents: dict[str, str]) -> dict[str, dict[str, int]]:
    relevant: dict[str, dict[str, int]] = defaultdict(dict)
    faults = []
    for line, (query, document, grade) in _table(path, 3):
        if not grade.lstrip("-").isdigit():
            if line > 1:  # the first is its heading
                faults.append(f"line {line}: {grade!r} is not a whole number")
            continue
        for name, known, file in ((query, queries, "queries"), (document, documents, "corpus")):
            if name not in known:
                faults.append(f"line {line}: {name!r} is not in {file}.jsonl")
        relevant[query][document] = int(grade)
    _refuse(path, faults)
    return relevant


def _refuse(path: Path, faults: list[str]) -> None:
    """Raise UserError with the first faults of a file and the number of the others, where there are any."""
    if faults:
        more = [f"and {len(faults) - MAX_FAULTS_SHOWN} more"] if len(faults) > MAX_FAULTS_SHOWN else []
        raise UserError("\n".join([*(f"{path}, {fault}" for fault in faults[:MAX_FAULTS_SHOWN]), *more]))


def _table(path: Path, columns: int) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a CSV or TSV file but for its heading, each with its line. Raises UserError."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    read, empty = tables.READERS[".tsv" if path.suffix == ".tsv" else ".csv"], True
    with path.open("rb") as file:
        for line, row in read(file, str(path)):
            if len(row) != columns:
                raise UserError(f"{path}, line {line}: {len(row)} columns, and {columns} are wanted")
            if line == 1 and tuple(cell.lower() for cell in row) in HEADINGS:
                continue
            empty = False
            yield line, row
    if empty:
        raise UserError(f"{path} is empty")


def _json_lines(path: Path) -> Iterator[tuple[int, str, tables.Json]]:
    """Yield the line, the id and the object of each line of a BEIR file. Raises UserError for one without an id."""
    with path.open("rb") as file:
        for line, row in tables.read_json_lines(file, str(path)):
            if "_id" not in row:
                raise UserError(f"{path}, line {line}: the JSON object has no _id")
            yield line, str(row["_id"]), row  # ids may be numbers, but qrels hold text alone


def _digest(dataset: Dataset) -> str:
    """Hash a set's contents, whatever its files are called; a piece at a time, for it may fill half the memory."""
    digest = hashlib.sha256()
    for piece in _pieces(dataset):
        digest.update(json.dumps(piece).encode())
    return digest.hexdigest()


def _pieces(dataset: Dataset) -> Iterator[Any]:
    for part in dataset if isinstance(dataset, tuple) else (dataset,):
        for name, content in vars(part).items():
            yield name
            if isinstance(content, dict):
                yield from content.items()
            elif isinstance(content, list):
                yield from content
