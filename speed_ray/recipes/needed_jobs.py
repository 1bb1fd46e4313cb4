"""Tell which jobs a recipe needs; `pipeline.py` has what each does."""

from speed_ray.recipes.schema import Evaluate, Recipe


def needed_jobs(recipe: Recipe) -> list[str]:
    """List the jobs that a recipe needs, in order: up to its examples, or to its embedder where it has one."""
    wanted = recipe.synthesize
    jobs = {
        "read_documents": recipe.corpus is not None,
        "brainstorm": not recipe.is_grounded,
        "align_junior": wanted.generator != "base" or recipe.trains_revisor,
        "align_senior": wanted.generator == "senior",
        "align_revisor": recipe.trains_revisor,
        "synthesize": True,
        "curate": recipe.score is not None or (recipe.embedder is not None and not recipe.embedder.stream),
        "score": recipe.score is not None,
        "train_embedder": recipe.embedder is not None,
        "evaluate": recipe.embedder is not None and (recipe.is_grounded or recipe.evaluate != Evaluate()),
    }
    return [job for job, is_needed in jobs.items() if is_needed]
