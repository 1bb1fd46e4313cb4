"""Run a recipe's own checks, those of the first job, and find whether its topics or documents are there."""

from collections.abc import Iterator

from speed_ray.doctor.finding import Finding
from speed_ray.documents.sources import open_source
from speed_ray.errors import UserError
from speed_ray.executor.preflight import check_api_key, check_recipe
from speed_ray.recipes.schema import Recipe
from speed_ray.stages.synthesize import Synthesize
from speed_ray.stages.topics import topics_of
from speed_ray.storage.store import CLOUDS


def check_inputs(recipe: Recipe) -> Iterator[Finding]:
    """Find what is wrong with a recipe's templates, engines, model folders, key, and topics or documents."""
    try:
        check_recipe(recipe, Synthesize(recipe).shortest_requests())
        check_api_key(recipe.teacher, "teacher")
        check_api_key(recipe.generator, "generator")
        yield Finding("recipe", "ok", "templates, engines and model folders are in order")
    except UserError as error:
        yield said(error)
    if recipe.topics is not None:
        yield Finding("topics", "ok", f"{len(topics_of(recipe)):,} lines in {recipe.topics.source}")
    if recipe.corpus is not None:
        yield _documents(recipe.corpus.source)


def said(error: Exception, name: str = "recipe") -> Finding:
    """Turn an error into a finding: its first line says what happened, the rest what to do."""
    found, _, advice = str(error).partition("\n")
    return Finding(name, "fail", found, advice.replace("\n", " "))


def _documents(source: str) -> Finding:
    if source.startswith(tuple(f"{scheme}://" for scheme in CLOUDS)):  # which would be copied here
        return Finding("documents", "ok", f"{source} is read by the first job")
    with open_source(source) as found:
        return Finding("documents", "ok", f"{len(found.names):,} files in {source}")
