"""Keep what was paid for to plan a run: each sample is a small run below it, found again by what decides it.

samples/<digest>-<rows of each kind>/   a run; sampled.json is in it once it is whole
"""

import json
from typing import NamedTuple

from speed_ray.planning.rehearsal import small_recipe
from speed_ray.recipes.schema import Recipe
from speed_ray.records import content_id
from speed_ray.stages.example_request import asked_about
from speed_ray.storage.fingerprint import identity_fields
from speed_ray.storage.run import PASSAGES, SAMPLES, TOPICS, Run, sample_folders
from speed_ray.storage.store import read_if_exists

WHOLE = "sampled.json"
DECIDES = (
    *("seed", "teacher", "generator", "languages", "mix", "slots"),
    *("brainstorm", "draft", "propose", "judge", "critique", "synthesize", "revise"),
)


class Sample(NamedTuple):
    """Hold a sample, and how many rows of each kind it has."""

    run: Run
    rows: int


def new_sample(recipe: Recipe, source: Run, run: Run, rows: int) -> Run:
    """Open the sample of so many rows of each kind, which may be there already, whole or in part."""
    return Run(f"{run.uri.rstrip('/')}/{SAMPLES}/{_digest(recipe, source)}-{rows}")


def finish_sample(sample: Run) -> None:
    """Note that a sample is whole."""
    sample.store.put(WHOLE, b"{}")


def find_sample(recipe: Recipe, source: Run, run: Run) -> Sample | None:
    """Find the largest whole sample of a run that a recipe can be told by."""
    folders = sample_folders(run.store)
    begins = f"{SAMPLES}/{_digest(recipe, source)}-" if folders else ""
    sizes = [int(folder.removeprefix(begins)) for folder in folders if begins and folder.startswith(begins)]
    for rows in sorted(sizes, reverse=True):
        sample = Sample(new_sample(recipe, source, run, rows), rows)
        if read_if_exists(sample.run.store, WHOLE) is not None:
            return sample
    return None


def _digest(recipe: Recipe, source: Run) -> str:
    """Hash the settings that decide a sample but its size, and the topics or passages that it is about."""
    fields = identity_fields(small_recipe(recipe, 1))
    about = source.artifact(TOPICS if not recipe.is_grounded else PASSAGES).records_digest()
    decides = {key: fields[key] for key in DECIDES} | {"about": about, "asked_about": asked_about(recipe)}
    return content_id(json.dumps(decides, sort_keys=True))[:16]
