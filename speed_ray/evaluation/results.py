"""What was scored, as it is kept in a run: one small file a task, then one a model, and a table of them all.

`evaluation/<model's digest>/<task>-<its digest>.json` is created when a task is done, and a rerun skips it.
`evaluation/<base, embedder or bm25>.json` holds all of a model's scores.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from speed_ray.errors import Interrupted
from speed_ray.evaluation.datasets import METRICS, EvaluationTask
from speed_ray.evaluation.eval_models import BM25, EvalModel
from speed_ray.storage.run import Run
from speed_ray.storage.store import read_if_exists

FOLDER = "evaluation"
SHOWN = {"spearman": "Spearman", "accuracy": "accuracy", "ndcg_at_10": "nDCG@10", "main_score": "MTEB's own"}

Result = dict[str, Any]  # kind, name, sources, instruction, scores, facts; of MTEB all of its own result


def applies(subject: EvalModel, task: EvaluationTask) -> bool:
    """Whether a model can be scored on a task: BM25 ranks documents and does no more."""
    return subject.name != BM25 or task.kind == "retrieval"


def kept(run: Run, subject: EvalModel, task: EvaluationTask) -> Result | None:
    """What a model scored on a task, or None before it did. Raises Interrupted where the file is damaged."""
    data = read_if_exists(run.store, _path(subject, task))
    if data is None:
        return None
    try:
        found: Result = json.loads(data)
    except ValueError as error:
        raise Interrupted(
            f"{run.uri}/{_path(subject, task)} is damaged ({error}).\nDelete that one file and evaluate again."
        ) from None
    return found


def keep(run: Run, subject: EvalModel, task: EvaluationTask, result: Result) -> None:
    """Store one task's result; where another worker was first, its result stays."""
    run.store.create(_path(subject, task), _json(result))


def publish_scores(run: Run, subjects: Sequence[EvalModel], tasks: Sequence[EvaluationTask]) -> None:
    """Write the results of each model to one file."""
    for subject in subjects:
        done = [result for task in tasks if applies(subject, task) and (result := kept(run, subject, task))]
        if done:
            model = {"model": subject.name, "digest": subject.digest, "folder": subject.model}
            run.store.put(f"{FOLDER}/{subject.name}.json", _json({**model, "results": done}))


def published_scores(run: Run, model: str) -> list[Result]:
    """All results of a model ("base", "embedder", "bm25"), as `publish_scores` wrote them."""
    results: list[Result] = json.loads(run.store.get(f"{FOLDER}/{model}.json"))["results"]
    return results


def score_table(run: Run, subjects: Sequence[EvalModel], tasks: Sequence[EvaluationTask]) -> Table:
    """One row a set, one column a model; MTEB's entries of several tasks end with their mean."""
    shown = Table("set", "score", *(subject.name for subject in subjects), title="Embedders")
    for column in shown.columns[2:]:
        column.justify = "right"
    found = {(subject, task): _main(run, subject, task) for subject in subjects for task in tasks}
    for task in tasks:
        shown.add_row(task.name, SHOWN[METRICS[task.kind]], *(_cell(found[subject, task]) for subject in subjects))
    for entry in dict.fromkeys(task.sources[0] for task in tasks if task.kind == "mteb"):
        of_entry = [task for task in tasks if task.kind == "mteb" and task.sources[0] == entry]
        if len(of_entry) > 1:
            means = [_mean([found[subject, task] for task in of_entry]) for subject in subjects]
            shown.add_row(entry, f"mean of {len(of_entry)}", *map(_cell, means), style="bold")
    return shown


def _main(run: Run, subject: EvalModel, task: EvaluationTask) -> float | None:
    result = kept(run, subject, task) if applies(subject, task) else None
    return float(result["scores"][METRICS[task.kind]]) if result else None


def _mean(scores: list[float | None]) -> float | None:
    there = [score for score in scores if score is not None]
    return sum(there) / len(there) if len(there) == len(scores) else None


def _cell(score: float | None) -> str:
    return "" if score is None else f"{score:.4f}"


def _path(subject: EvalModel, task: EvaluationTask) -> str:
    name = re.sub(r"[^\w.-]", "_", task.name)
    return f"{FOLDER}/{subject.digest[:16]}/{name}-{task.digest[:8]}.json"


def _json(tree: Result) -> bytes:
    return json.dumps(tree, indent=1, ensure_ascii=False).encode()
