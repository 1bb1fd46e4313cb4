"""One model on one task: the piece of an evaluation that a worker does, and that a rerun skips where it is done."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from speed_ray import __version__
from speed_ray.errors import UserError
from speed_ray.evaluation import bm25, datasets, results
from speed_ray.evaluation import eval_models as under
from speed_ray.evaluation.datasets import EvaluationTask
from speed_ray.evaluation.eval_models import EvalModel
from speed_ray.evaluation.loaders import Retrieval
from speed_ray.evaluation.results import Result
from speed_ray.recipes.schema import Evaluate
from speed_ray.storage.run import Run


@dataclass(frozen=True)
class Scoring:
    """What a worker must know to score one model on one task."""

    run: str
    subject: EvalModel
    task: EvaluationTask
    device: str  # "cpu" or "cuda"

    def __str__(self) -> str:
        return f"{self.task.name} ({self.subject.name})"


def all_tasks(wanted: Evaluate) -> list[EvaluationTask]:
    """All that a recipe wants an embedder scored on, in its order. Raises UserError for what cannot be."""
    found = datasets.recipe_tasks(wanted)
    if wanted.mteb:
        from speed_ray.evaluation import mteb_tasks  # takes mteb's seconds to load

        found += mteb_tasks.mteb_tasks(wanted.mteb)
    if not found:
        raise UserError("evaluate: the recipe names no set. Give it sts, classification, retrieval or mteb.")
    return found


def missing_scores(
    run: Run, subjects: Sequence[EvalModel], tasks: Sequence[EvaluationTask], device: str
) -> list[Scoring]:
    """What is not done yet, a model's tasks one after the other."""
    return [
        Scoring(run.store.uri, subject, task, device)
        for subject in subjects
        for task in tasks
        if results.applies(subject, task) and results.kept(run, subject, task) is None
    ]


def score_task(scoring: Scoring) -> None:
    """Score and store. Raises UserError or Interrupted."""
    subject, task = scoring.subject, scoring.task
    scored = _mteb(scoring) if task.kind == "mteb" else _local(scoring)
    named = asdict(task) | {"model": subject.name, "model_digest": subject.digest, "code": __version__}
    if not subject.instructed:
        named["instruction"] = ""
    results.keep(Run(scoring.run), subject, task, {**named, **scored})


def _local(scoring: Scoring) -> Result:
    subject, task = scoring.subject, scoring.task
    loaded = datasets.load_dataset(task.kind, task.sources)
    if subject.name == under.BM25:
        assert isinstance(loaded, Retrieval)
        scores = bm25.bm25_ranking(loaded).scores(loaded)
    else:
        model = under.load_model(subject, scoring.device)
        scores = datasets.score_dataset(under.embed(model, subject.instructed, task.instruction or ""), loaded)
    return {"scores": scores, "facts": datasets.dataset_facts(loaded)}


def _mteb(scoring: Scoring) -> Result:
    from speed_ray.evaluation import mteb_tasks

    subject, task = scoring.subject, scoring.task
    model = under.load_model(subject, scoring.device)
    found = mteb_tasks.score_mteb(model, subject, mteb_tasks.find_task(task.sources[0], task.name))
    return {"scores": {"main_score": found["main_score"]}, "mteb": found["result"]}
