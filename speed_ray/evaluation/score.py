"""Score one model on one task: the unit of work of an evaluation, which a rerun skips where it is done."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from speed_ray import __version__
from speed_ray.errors import UserError
from speed_ray.evaluation import datasets, eval_models, metrics, results
from speed_ray.evaluation.datasets import Dataset, EvaluationTask, RetrievalSet
from speed_ray.evaluation.eval_models import EvalModel
from speed_ray.evaluation.own_queries import own_tasks
from speed_ray.evaluation.results import Result
from speed_ray.recipes.schema import Recipe
from speed_ray.storage.run import Run


@dataclass(frozen=True)
class Scoring:
    """Tell a worker which model to score on which task."""

    run: str
    model: EvalModel
    task: EvaluationTask
    device: str  # "cpu" or "cuda"

    def __str__(self) -> str:
        return f"{self.task.name} ({self.model.name})"


def list_tasks(run: Run, recipe: Recipe) -> list[EvaluationTask]:
    """List all tasks of a recipe, in its order, then a run's own. Raises UserError for one that cannot be scored."""
    wanted = recipe.evaluate
    tasks = datasets.local_tasks(wanted) + own_tasks(run, recipe)
    if wanted.mteb:
        from speed_ray.evaluation import mteb_tasks  # takes mteb's seconds to load

        tasks += mteb_tasks.mteb_tasks(wanted.mteb)
    if not tasks:
        raise UserError("evaluate: the recipe names no set. Give it sts, classification, retrieval or mteb.")
    return tasks


def missing_scores(
    run: Run, models: Sequence[EvalModel], tasks: Sequence[EvaluationTask], device: str
) -> list[Scoring]:
    """List the scorings without a result, a model's tasks one after the other."""
    return [
        Scoring(run.store.uri, model, task, device)
        for model in models
        for task in tasks
        if results.can_score(model, task) and results.read_result(run, model, task) is None
    ]


def score_task(scoring: Scoring) -> None:
    """Score a model on a task, and store the result. Raises UserError or Interrupted."""
    model, task = scoring.model, scoring.task
    scores = _score_mteb(scoring) if task.kind == "mteb" else _score_local(scoring)
    named = asdict(task) | {"model": model.name, "model_digest": model.digest, "code": __version__}
    if not model.instructed:
        named["instruction"] = ""
    results.write_result(Run(scoring.run), model, task, {**named, **scores})


def _score_local(scoring: Scoring) -> Result:
    model, task = scoring.model, scoring.task
    dataset = datasets.load_dataset(task.kind, task.sources)
    facts = datasets.count_rows(dataset)
    if model.name == eval_models.BM25:
        assert isinstance(dataset, RetrievalSet)
        return {**_score_ranking(metrics.rank_by_bm25(dataset), dataset), "facts": facts}
    loaded = eval_models.load_model(model, scoring.device)
    embed = eval_models.embed_with(loaded, model.instructed, task.instruction or "")
    return {**score_embeddings(embed, dataset), "facts": facts}


def score_embeddings(embed: metrics.Embed, dataset: Dataset) -> Result:
    """Compute the `scores` of a set of our own, and of a ranked one those `by_query`."""
    if isinstance(dataset, RetrievalSet):
        return _score_ranking(metrics.rank_by_cosine(embed, dataset), dataset)
    return {"scores": metrics.score_dataset(embed, dataset)}


def _score_ranking(ranking: metrics.Ranking, dataset: RetrievalSet) -> Result:
    return {"scores": metrics.score_ranking(ranking, dataset), "by_query": metrics.score_queries(ranking, dataset)}


def _score_mteb(scoring: Scoring) -> Result:
    from speed_ray.evaluation import mteb_tasks

    model, task = scoring.model, scoring.task
    loaded = eval_models.load_model(model, scoring.device)
    found = mteb_tasks.score_mteb(loaded, model, mteb_tasks.find_task(task.sources[0], task.name))
    return {"scores": {"main_score": found["main_score"]}, "mteb": found["result"]}
