"""What alignment brings an embedder: the same training on the examples of three writers, in the miniature world.

    python jobs/compare_writers.py runs/demo

Beside a finished run, two more are made of parts of it: one whose examples the junior writes, and one whose examples
are the senior's before their revision. Each is curated to as many examples, trains an embedder and is scored on
questions that are held out (miniature/retrieval_set.py), beside the untrained base and BM25.
"""

import shutil
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from speed_ray import pipeline
from speed_ray.errors import Interrupted, UserError
from speed_ray.evaluation import results
from speed_ray.recipes.schema import Recipe
from speed_ray.storage.run import EXAMPLES, PROPOSED_TASKS, TASKS, TOPICS, Run
from speed_ray.storage.trained_models import Model

SENTENCE = "How do I knead the dough?"
SHOWN = {"ndcg_at_10": "nDCG@10", "recall_at_100": "Recall@100", "mrr_at_10": "MRR@10"}


def compare(uri: str) -> Table:
    """Make what is missing of the two other runs; return one row for each embedder."""
    run = Run(uri)
    recipe = run.recipe()
    examples = recipe.curate.examples
    runs = {
        "junior": _sibling(run, recipe, "junior", ("models/junior",)),
        "senior": _sibling(run, recipe, "senior", (EXAMPLES,)),
        "senior, revised": run,
    }
    shown = Table("embedder", *SHOWN.values(), title=f"Embedders, each trained on {examples} examples of one writer")
    for model, name in (("base", "untrained base"), ("bm25", "BM25")):
        shown.add_row(name, *_scores(run, model))
    for name, each in runs.items():
        shown.add_row(name, *_scores(each, "embedder"))
    return shown


def _sibling(run: Run, recipe: Recipe, writer: str, parts: tuple[str, ...]) -> Run:
    """Finish the run beside this one whose examples are a writer's own, begun with some parts of this one."""
    sibling = Run(f"{run.uri.rstrip('/')}-{writer}")
    for part in (TOPICS, PROPOSED_TASKS, TASKS, *parts):
        there = Path(sibling.store.uri, part)
        if not there.is_dir():
            shutil.copytree(Path(run.store.uri, part), there.with_name(f"{there.name}.unfinished"), dirs_exist_ok=True)
            there.with_name(f"{there.name}.unfinished").rename(there)
    synthesize = recipe.synthesize.model_copy(update={"generator": writer, "revise": False})
    changed = recipe.model_copy(update={"synthesize": synthesize})
    for job in (pipeline.synthesize, pipeline.curate, pipeline.train_embedder, pipeline.evaluate):
        if job is pipeline.synthesize and sibling.artifact(EXAMPLES).manifest() is not None:
            sibling.freeze(changed)  # its writer is a model of the other run
        else:
            job(sibling, changed)
    return sibling


def _scores(run: Run, model: str) -> list[str]:
    scores = next(result["scores"] for result in results.published_scores(run, model) if result["kind"] == "retrieval")
    return [f"{scores[name]:.3f}" for name in SHOWN]


def _encoded(run: Run) -> str:
    """Load the embedder as any user would, and say what a sentence becomes."""
    from sentence_transformers import SentenceTransformer

    folder = Model(run, "embedder").fetch()
    vector = SentenceTransformer(str(folder), device="cpu").encode(SENTENCE, prompt_name="query")
    first = ", ".join(f"{number:.3f}" for number in vector[:4])
    return f"SentenceTransformer({str(folder)!r}).encode({SENTENCE!r}): {len(vector)} numbers, [{first}, ...]"


def main(uri: str) -> None:
    """Print the table, and a sentence's vector."""
    console = Console()
    if Run(uri).recipe().topics.source != "miniature://topics":
        raise UserError(f"{uri} is not about the miniature world, whose questions embedders are compared on.")
    console.print(compare(uri))
    console.print(_encoded(Run(uri)), markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except (UserError, Interrupted, IndexError) as error:
        sys.exit(f"usage: python jobs/compare_writers.py RUN\n{error}")
