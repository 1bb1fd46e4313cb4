"""Say what a job has made, and what to type next."""

import shlex
from collections.abc import Iterator, Sequence

from speed_ray.console.status import artifact_statuses, breakdown, trained_rows
from speed_ray.recipes.needed_jobs import needed_jobs
from speed_ray.recipes.schema import Recipe
from speed_ray.storage.run import (
    ARTIFACTS,
    DOCUMENTS,
    PASSAGES,
    PRODUCED_BY,
    TASKS,
    TOPICS,
    Run,
    finished_examples,
)
from speed_ray.storage.trained_models import Model

READ_FOR = {TASKS: TOPICS, PASSAGES: DOCUMENTS}  # what was read to make an artifact
MADE = {command: made for made, command in PRODUCED_BY.items()}  # the last artifact or model of each command


def end_lines(
    run: Run, recipe: Recipe, job: str, command: str, recipe_option: str, overrides: Sequence[str]
) -> Iterator[str]:
    """Yield what a job made and the next command, which begins with `command` as the user typed it."""
    made = _made(job, recipe)
    yield from _made_lines(run, made)
    where, following = shlex.quote(run.uri), _next_job(run, recipe, job)
    if made in ARTIFACTS and not run.artifact(made).record_files():
        yield f"next: {command} show {where} {find_rejecting(run, made)} --rejects"
    elif following is None:
        yield f"next: {command} verify {where} && {command} show {where} {finished_examples(recipe)}"
    else:
        options = "".join(f" --set {shlex.quote(override)}" for override in overrides)
        yield f"next: {command} {following.replace('_', '-')} {recipe_option} --run {where}{options}"


def find_rejecting(run: Run, name: str) -> str:
    """Name the artifact, among one and those that it was made of, whose rejects say why it is empty."""
    manifest, plan = run.artifact(name).manifest(), run.artifact(name).plan()
    if manifest and plan and plan.input and not manifest["counts"]["rejected"]:
        return find_rejecting(run, plan.input)
    return name


def _made(job: str, recipe: Recipe) -> str:
    return finished_examples(recipe) if job == "synthesize" else MADE[job.replace("_", "-")]


def _next_job(run: Run, recipe: Recipe, job: str) -> str | None:
    """Return the next job that the recipe needs and that is not done, or None."""
    needed = needed_jobs(recipe)
    later = needed[needed.index(job) + 1 :] if job in needed else []
    return next((each for each in later if each == "evaluate" or not _is_done(run, _made(each, recipe))), None)


def _is_done(run: Run, made: str) -> bool:
    found = run.artifact(made) if made in ARTIFACTS else Model(run, made)
    return found.manifest() is not None


def _made_lines(run: Run, made: str) -> Iterator[str]:
    if made not in ARTIFACTS:
        model = Model(run, made)
        yield f"\n{made}: trained, in {model.where}"
        yield from trained_rows(model.published())
    for part in artifact_statuses(run):
        counts = part.counts
        if part.artifact == made:
            yield f"\n{made}: {counts.records:,} records in {run.uri}/{made}"
        elif part.artifact == READ_FOR.get(made) and counts.rejected:  # a line that was lost unseen is a loss
            yield f"\n{part.artifact}: {counts.records:,} of {counts.records + counts.rejected:,} lines or files"
        else:
            continue
        yield from breakdown(part)
