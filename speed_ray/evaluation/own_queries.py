"""Find what a run of documents is scored on without being told: the corpus's judged queries, and held-out ones.

Judged queries lie beside the corpus in a BEIR folder. Held-out queries were written by the generator about documents
that nothing was trained on: they tell whether training helps on this corpus where nobody judged anything, and no more.
"""

from pathlib import Path

from speed_ray.evaluation.datasets import HELD_OUT_URI, EvaluationTask, retrieval_task
from speed_ray.recipes.schema import EvaluationSet, Recipe
from speed_ray.records import HELD_OUT
from speed_ray.storage.run import Run, finished_pairs
from speed_ray.text import beir


def own_tasks(run: Run, recipe: Recipe) -> list[EvaluationTask]:
    """List the tasks of a run of documents beside those that its recipe names. Raises UserError for a faulty set."""
    return [*_judged(recipe), *_held_out(run, recipe)] if recipe.is_grounded else []


def _judged(recipe: Recipe) -> list[EvaluationTask]:
    assert recipe.corpus is not None
    folder = Path(recipe.corpus.source).expanduser().absolute()
    named = [Path(each.path).expanduser().absolute() for each in recipe.evaluate.retrieval]
    if folder in named or not all(beir.find_file(folder, name) for name in (beir.CORPUS, beir.QUERIES, beir.TEST)):
        return []
    return [retrieval_task(EvaluationSet(path=str(folder)))]


def _held_out(run: Run, recipe: Recipe) -> list[EvaluationTask]:
    pairs = run.artifact(finished_pairs(recipe))
    rows = pairs.records() if pairs.manifest() is not None else iter(())
    first = next((row for row in rows if row["split"] == HELD_OUT), None)
    if first is None:
        return []
    path = f"{HELD_OUT_URI}{run.uri}/{pairs.name}"
    return [retrieval_task(EvaluationSet(path=path, instruction=first["instruction"]))]
