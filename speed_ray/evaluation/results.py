"""Store an evaluation's results in its run: one small file a task, then one a model, and a table of them all.

`evaluation/<model's digest>/<task>-<its digest>.json` is created when a task is done, and a rerun skips it.
`evaluation/<base, embedder or bm25>.json` holds all of a model's scores.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from speed_ray.errors import Interrupted
from speed_ray.evaluation.datasets import MAIN_SCORES, EvaluationTask, describe_faults
from speed_ray.evaluation.eval_models import BASE, BM25, EvalModel
from speed_ray.evaluation.intervals import paired_gain
from speed_ray.storage.run import Run
from speed_ray.storage.store import read_if_exists

FOLDER = "evaluation"
LABELS = {"spearman": "Spearman", "accuracy": "accuracy", "ndcg_at_10": "nDCG@10", "main_score": "MTEB's own"}

Result = dict[str, Any]  # kind, name, sources, instruction, scores, facts; of MTEB all of its own result


def can_score(model: EvalModel, task: EvaluationTask) -> bool:
    """Test whether a model can be scored on a task: BM25 ranks documents and does no more."""
    return model.name != BM25 or task.kind == "retrieval"


def read_result(run: Run, model: EvalModel, task: EvaluationTask) -> Result | None:
    """Read a model's result on a task; None before there is one. Raises Interrupted where the file is damaged."""
    data = read_if_exists(run.store, _path(model, task))
    if data is None:
        return None
    try:
        result: Result = json.loads(data)
    except ValueError as error:
        raise Interrupted(
            f"{run.uri}/{_path(model, task)} is damaged ({error}).\nDelete that one file and evaluate again."
        ) from None
    return result


def write_result(run: Run, model: EvalModel, task: EvaluationTask, result: Result) -> None:
    """Store one task's result; where another worker was first, its result stays."""
    run.store.create(_path(model, task), _json(result))


def publish_scores(run: Run, models: Sequence[EvalModel], tasks: Sequence[EvaluationTask]) -> None:
    """Write the results of each model to one file."""
    for model in models:
        done = [result for task in tasks if can_score(model, task) and (result := read_result(run, model, task))]
        if done:
            named = {"model": model.name, "digest": model.digest, "folder": model.location}
            run.store.put(f"{FOLDER}/{model.name}.json", _json({**named, "results": done}))


def published_scores(run: Run, model: str) -> list[Result]:
    """Read all results of a model ("base", "embedder", "bm25"), as `publish_scores` wrote them."""
    results: list[Result] = json.loads(run.store.get(f"{FOLDER}/{model}.json"))["results"]
    return results


def score_table(run: Run, models: Sequence[EvalModel], tasks: Sequence[EvaluationTask]) -> Table:
    """Build a table of one row a set and one column a model; MTEB's entries of several tasks end with their mean.

    Below it stands what was left out of a set.
    """
    said = [f"{task.name}: {'; '.join(faults)}" for task in tasks if (faults := _faults(run, models, task))]
    table = Table("set", "score", title="Embedders", caption=Text("\n".join(said)), caption_justify="left")
    for model in models:
        table.add_column(model.name, justify="right")
    scores = {task: [_main_score(run, model, task) for model in models] for task in tasks}
    for task in tasks:
        table.add_row(task.name, LABELS[MAIN_SCORES[task.kind]], *map(_cell, scores[task]))
        if any(gains := [_gain(run, models, model, task) for model in models]):
            table.add_row("", "over base, 95%", *gains)
    for entry in dict.fromkeys(task.sources[0] for task in tasks if task.kind == "mteb"):
        of_entry = [scores[task] for task in tasks if task.kind == "mteb" and task.sources[0] == entry]
        if len(of_entry) > 1:
            means = map(_mean, zip(*of_entry, strict=True))
            table.add_row(entry, f"mean of {len(of_entry)}", *map(_cell, means), style="bold")
    return table


def _main_score(run: Run, model: EvalModel, task: EvaluationTask) -> float | None:
    result = read_result(run, model, task) if can_score(model, task) else None
    return float(result["scores"][MAIN_SCORES[task.kind]]) if result else None


def _gain(run: Run, models: Sequence[EvalModel], model: EvalModel, task: EvaluationTask) -> str:
    """Describe a model's gain over the base, query by query; "" where one of them has no scores of queries."""
    base = next((each for each in models if each.name == BASE), None)
    if base is None or model is base or task.kind != "retrieval":
        return ""
    before, after = (read_result(run, each, task) or {} for each in (base, model))
    return str(paired_gain(before.get("by_query", {}), after.get("by_query", {})) or "")


def _faults(run: Run, models: Sequence[EvalModel], task: EvaluationTask) -> list[str]:
    done = (read_result(run, model, task) for model in models if can_score(model, task))
    return next((describe_faults(result.get("facts", {})) for result in done if result), [])


def _mean(scores: Sequence[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if len(known) == len(scores) else None


def _cell(score: float | None) -> str:
    return "" if score is None else f"{score:.4f}"


def _path(model: EvalModel, task: EvaluationTask) -> str:
    name = re.sub(r"[^\w.-]", "_", task.name)
    return f"{FOLDER}/{model.digest[:16]}/{name}-{task.digest[:8]}.json"


def _json(tree: Result) -> bytes:
    return json.dumps(tree, indent=1, ensure_ascii=False).encode()
