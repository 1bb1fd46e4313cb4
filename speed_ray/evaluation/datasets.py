"""The sets of a recipe: where they lie, what is put before their queries, and how a model's vectors are scored."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from speed_ray import __version__, kinds
from speed_ray.evaluation import loaders, metrics
from speed_ray.evaluation.loaders import Labelled, Pairs, Retrieval
from speed_ray.evaluation.metrics import Embed
from speed_ray.recipes.schema import Evaluate
from speed_ray.records import content_id

Kind = Literal["sts", "classification", "retrieval", "mteb"]
Loaded = Pairs | tuple[Labelled, Labelled] | Retrieval

MINIATURE = "miniature://retrieval"
METRICS: dict[Kind, str] = {
    "sts": "spearman",
    "classification": "accuracy",
    "retrieval": "ndcg_at_10",
    "mteb": "main_score",
}
INSTRUCTIONS: dict[Kind, str] = {
    "sts": kinds.load_kind("sts").instruction or "",  # the very words that it was trained with
    "classification": "Classify the text",
    "retrieval": "Given a question, find a passage that answers it",
}


@dataclass(frozen=True)
class EvaluationTask:
    """One thing that a model is scored on. `digest` names the data, the instruction and the code that scores."""

    kind: Kind
    name: str
    sources: tuple[str, ...]  # absolute paths; of MTEB the recipe's entry that the task is of
    instruction: str | None  # None: MTEB's own
    digest: str


def recipe_tasks(wanted: Evaluate) -> list[EvaluationTask]:
    """The local sets of a recipe, in its order. Each is read: raises UserError for what cannot be scored."""
    return [
        *(_task("sts", (each.path,), each.instruction) for each in wanted.sts),
        *(_task("classification", (each.train, each.test), each.instruction) for each in wanted.classification),
        *(_task("retrieval", (each.path,), each.instruction) for each in wanted.retrieval),
    ]


def load_dataset(kind: Kind, sources: tuple[str, ...]) -> Loaded:
    """Read one set whole. Raises UserError."""
    if kind == "sts":
        return loaders.read_pairs(Path(sources[0]))
    if kind == "classification":
        return loaders.read_labelled(Path(sources[0])), loaders.read_labelled(Path(sources[1]))
    if sources[0] == MINIATURE:
        from speed_ray.miniature import retrieval_set

        documents, queries, relevant = retrieval_set.draw_queries()
        return Retrieval(documents, queries, relevant, unanswered=0)
    return loaders.read_retrieval(Path(sources[0]))


def score_dataset(embed: Embed, loaded: Loaded) -> dict[str, float]:
    """Every score of one set; `METRICS` says which of them stands for it."""
    if isinstance(loaded, Pairs):
        return metrics.score_sts(embed, loaded)
    if isinstance(loaded, Retrieval):
        return metrics.score_ranking(embed, loaded).scores(loaded)
    return metrics.score_classification(embed, *loaded)


def dataset_facts(loaded: Loaded) -> dict[str, int]:
    """How large a set is, and what of it was left out."""
    if isinstance(loaded, Pairs):
        return {"pairs": len(loaded.scores)}
    if isinstance(loaded, Retrieval):
        sizes = {"documents": len(loaded.documents), "queries": len(loaded.queries)}
        return {**sizes, "queries_without_answer": loaded.unanswered}
    return {"train": len(loaded[0].texts), "test": len(loaded[1].texts), "labels": len(set(loaded[0].labels))}


def _task(kind: Kind, paths: tuple[str, ...], instruction: str | None) -> EvaluationTask:
    sources = tuple(path if path == MINIATURE else str(Path(path).expanduser().absolute()) for path in paths)
    loaded = load_dataset(kind, sources)
    said = INSTRUCTIONS[kind] if instruction is None else instruction
    digest = content_id(__version__, kind, said, _digest(loaded))
    name = sources[-1].replace("://", "-")
    return EvaluationTask(kind, Path(name).stem if kind != "retrieval" else Path(name).name, sources, said, digest)


def _digest(loaded: Loaded) -> str:
    """Hash what a set says, whatever its files are called; a piece at a time, for it may fill half the memory."""
    digest = hashlib.sha256()
    for piece in _pieces(loaded):
        digest.update(json.dumps(piece).encode())
    return digest.hexdigest()


def _pieces(loaded: Loaded) -> Iterator[Any]:
    for part in loaded if isinstance(loaded, tuple) else (loaded,):
        for name, content in vars(part).items():
            yield name
            if isinstance(content, dict):
                yield from content.items()
            elif isinstance(content, list):
                yield from content
