"""Read evaluation sets: STS and classification tables, and BEIR folders. Each is read whole, and checked first.

STS                text, text, score            CSV or TSV, perhaps with a heading: evaluation/table_columns.py
classification     text, label                  likewise
BEIR               corpus.jsonl, queries.jsonl, qrels/test.tsv: text/beir.py
"""

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from speed_ray import kinds
from speed_ray.errors import UserError
from speed_ray.evaluation import table_columns
from speed_ray.recipes.schema import Evaluate, EvaluationSet
from speed_ray.records import HELD_OUT, content_id, titled_text
from speed_ray.storage.fingerprint import code_digests
from speed_ray.storage.run import PASSAGES, Run
from speed_ray.text import beir, tables

MINIATURE = "miniature://retrieval"
HELD_OUT_URI = "held_out://"  # before the URI of a run of documents and the name of its artifact

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
    Judged documents that the corpus lacks stay in `relevant`, where nothing can find them: ArguAna has some, and
    mteb's scores count them too.
    """

    documents: dict[str, str]
    queries: dict[str, str]
    relevant: dict[str, dict[str, int]]
    unanswered: int

    def hidden_from(self, query: str) -> str | None:
        """Return the document that a query's results leave out: that of its own id, unless it is judged relevant."""
        is_other = query not in self.documents or self.relevant.get(query, {}).get(query, 0) > 0
        return None if is_other else query


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
        *map(retrieval_task, wanted.retrieval),
    ]


def retrieval_task(wanted: EvaluationSet) -> EvaluationTask:
    """Return the task of one retrieval set. Raises UserError for a faulty set."""
    return _task("retrieval", (wanted.path,), wanted.instruction)


def _task(kind: TaskType, paths: tuple[str, ...], instruction: str | None) -> EvaluationTask:
    sources = tuple(path if "://" in path else str(Path(os.path.expanduser(path)).absolute()) for path in paths)
    prompt = INSTRUCTIONS[kind] if instruction is None else instruction
    scoring = code_digests("speed_ray.evaluation.metrics", __name__).values()  # by name: it imports this module
    digest = content_id(*scoring, kind, prompt, _digest(load_dataset(kind, sources)))
    name = "held-out queries" if sources[0].startswith(HELD_OUT_URI) else Path(sources[-1].replace("://", "-")).name
    return EvaluationTask(
        kind, name if kind == "retrieval" else Path(name.removesuffix(".gz")).stem, sources, prompt, digest
    )


def load_dataset(kind: TaskType, sources: tuple[str, ...]) -> Dataset:
    """Read one set whole. Raises UserError."""
    if kind == "sts":
        return read_sts(Path(sources[0]))
    if kind == "classification":
        train = read_labelled(Path(sources[0]))
        return train, read_labelled(Path(sources[1]), train)
    if sources[0] == MINIATURE:
        from speed_ray.miniature import retrieval_set

        return RetrievalSet(*retrieval_set.draw_queries(), unanswered=0)
    if sources[0].startswith(HELD_OUT_URI):
        uri, _, name = sources[0].removeprefix(HELD_OUT_URI).rpartition("/")
        return read_held_out(Run(uri), name)
    return read_beir(Path(sources[0]))


def count_rows(dataset: Dataset) -> dict[str, int]:
    """Count a set's texts, and what is left out of it or cannot be found."""
    if isinstance(dataset, StsSet):
        return {"pairs": len(dataset.scores), "empty_texts": _empty([*dataset.first, *dataset.second])}
    if isinstance(dataset, RetrievalSet):
        judged = {document for grades in dataset.relevant.values() for document in grades}
        return {
            "documents": len(dataset.documents),
            "queries": len(dataset.queries),
            "queries_without_answer": dataset.unanswered,
            "own_documents_left_out": sum(dataset.hidden_from(query) is not None for query in dataset.queries),
            "judged_documents_missing": len(judged - dataset.documents.keys()),
            "empty_documents": _empty(dataset.documents.values()),
            "empty_queries": _empty(dataset.queries.values()),
        }
    train, test = dataset
    sizes = {"train": len(train.texts), "test": len(test.texts), "labels": len(set(train.labels))}
    return {**sizes, "empty_texts": _empty([*train.texts, *test.texts])}


def describe_faults(facts: dict[str, int]) -> list[str]:
    """Put into words what `count_rows` counted as left out, as not to be found, or as empty."""
    said = {
        "queries_without_answer": "queries without a relevant document are left out",
        "own_documents_left_out": "queries do not find the document with their own id",
        "judged_documents_missing": "judged documents are not in the corpus and count as not found",
        "empty_documents": "documents have no text",
        "empty_queries": "queries have no text",
        "empty_texts": "texts are empty",
    }
    return [f"{facts[name]:,} {words}" for name, words in said.items() if facts.get(name)]


def read_sts(path: Path) -> StsSet:
    """Read an STS table. Raises UserError with the lines without a score, and with those whose quotes span lines."""
    rows = table_columns.read_columns(path, table_columns.STS)
    scores = [_number(score) for _, (_, _, score) in rows]
    faults = [
        f"line {line}: {row[2]!r} is not a score" for (line, row), n in zip(rows, scores, strict=True) if n is None
    ]
    broken = [line for line, row in rows if "\n" in row[0] + row[1]]  # two open quotes close each other
    faults += [f"line {line}: a sentence ends on another line than it begins: is a quote open?" for line in broken]
    tables.refuse_faults(str(path), faults)
    numbers = [score for score in scores if score is not None]
    if len(set(numbers)) < 2:
        raise UserError(f"{path} has only the score {numbers[0]:g}: there is nothing to correlate with")
    return StsSet([row[0] for _, row in rows], [row[1] for _, row in rows], numbers)


def read_labelled(path: Path, train: LabelledSet | None = None) -> LabelledSet:
    """Read a classification table. Raises UserError with the lines without a label, or where there is only one label.

    Of a test's table those are refused, too, whose label is not in `train`: nothing can predict it.
    """
    rows = table_columns.read_columns(path, table_columns.CLASSIFICATION)
    tables.refuse_faults(str(path), [f"line {line}: there is no label" for line, row in rows if not row[1].strip()])
    texts, labels = [row[0] for _, row in rows], [row[1] for _, row in rows]
    if train is not None:
        known = set(train.labels)
        unknown = [
            f"line {line}: no row of train has the label {row[1]!r}" for line, row in rows if row[1] not in known
        ]
        tables.refuse_faults(str(path), unknown)
    if len(set(labels)) < 2:
        raise UserError(f"{path} has only the label {labels[0]!r}: there is nothing to tell apart")
    return LabelledSet(texts, labels)


def read_held_out(run: Run, name: str) -> RetrievalSet:
    """Read the held-out queries of an artifact of examples about passages; each one's answer is its passage."""
    documents = {row["id"]: titled_text(row) for row in run.artifact(PASSAGES).records()}
    held_out = [row for row in run.artifact(name).records() if row["split"] == HELD_OUT]
    queries = {row["id"]: row["query"] for row in held_out}
    return RetrievalSet(documents, queries, {row["id"]: {row["parent_id"]: 1} for row in held_out}, unanswered=0)


def read_beir(folder: Path) -> RetrievalSet:
    """Read a BEIR folder. Raises UserError for files, ids and texts that are missing."""
    corpus, asked, qrels = beir.find_files(folder, beir.CORPUS, beir.QUERIES, beir.TEST)
    documents, queries = beir.read_texts(corpus, "title", "text"), beir.read_texts(asked, "text")
    for path, texts in ((corpus, documents), (asked, queries)):
        if _empty(texts.values()) == len(texts):
            raise UserError(f"{path} holds no text")
    relevant = beir.read_relevant(qrels, queries, documents)
    answered = {query: found for query, found in relevant.items() if any(grade > 0 for grade in found.values())}
    if not answered:
        raise UserError(f"{qrels} names no relevant document, so no query can be scored")
    kept = {query: queries[query] for query in answered}
    return RetrievalSet(documents, kept, answered, len(queries) - len(kept))


def _empty(texts: Iterable[str]) -> int:
    return sum(not text.strip() for text in texts)


def _number(score: str) -> float | None:
    try:
        return number if math.isfinite(number := float(score)) and "_" not in score else None  # Python's 1_000
    except ValueError:
        return None


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
