"""Find whether models and evaluation sets of the hub can be had: from this machine's cache, or from the hub."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from huggingface_hub import HfApi, constants

from speed_ray.doctor import model_sizes
from speed_ray.doctor.finding import Finding, gigabytes
from speed_ray.doctor.model_sizes import NamedModel
from speed_ray.recipes.schema import Recipe

FETCH = "Fetch it where there is a network (`hf download {model}`), or name a folder that every node sees as {key}."


def check_hub(models: Sequence[NamedModel]) -> Iterator[Finding]:
    """Find whether each model of the hub is here already, or may be fetched."""
    for named in models:
        if named.is_of_hub:
            yield _check_model(named)


def check_evaluation_data(recipe: Recipe) -> Iterator[Finding]:
    """Find whether the data of the recipe's MTEB tasks is here already, or may be fetched."""
    entries = recipe.evaluate.mteb if recipe.evaluate else []
    if not entries:
        return
    from speed_ray.evaluation.mteb_tasks import data_of  # imports mteb

    sets = data_of(entries)
    missing = [name for name in sets if not _is_cached(name)]
    reason = _why_unreachable(missing[0]) if missing else ""
    if not reason:
        to_fetch = f"; {len(missing)} of them will be fetched from the hub" if missing else ""
        yield Finding("hub", "ok", f"evaluate.mteb: {len(sets)} data sets{to_fetch}")
        return
    more = f" and of {len(missing) - 1} more" if missing[1:] else ""
    advice = "Fetch it where there is a network (`hf download --repo-type dataset NAME`), or take the tasks out."
    yield Finding("hub", "fail", f"evaluate.mteb: the data of {missing[0]}{more} cannot be had: {reason}", advice)


def _is_cached(name: str) -> bool:
    folder = Path(constants.HF_HUB_CACHE) / f"datasets--{name.replace('/', '--')}" / "snapshots"
    return folder.is_dir() and any(folder.iterdir())


def _why_unreachable(name: str) -> str:
    """Ask the hub about one data set; return why it cannot be had, or nothing."""
    if os.environ.get("HF_HUB_OFFLINE"):
        return "HF_HUB_OFFLINE forbids to ask the hub"
    try:
        HfApi(endpoint=constants.ENDPOINT).dataset_info(name, timeout=10)
    except Exception as error:  # of httpx, of the hub: none of them shares a class
        return str(error).strip().partition("\n")[0] or type(error).__name__
    return ""


def _check_model(named: NamedModel) -> Finding:
    if model_sizes.folder_of(named) is not None:
        return Finding("hub", "ok", f"{named.key}: {named.model} is in this machine's cache")
    fetch = FETCH.format(model=named.model, key=named.key)
    if os.environ.get("HF_HUB_OFFLINE"):
        found = f"{named.key}: {named.model} is not in this machine's cache, and HF_HUB_OFFLINE forbids to ask the hub"
        return Finding("hub", "fail", found, fetch)
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        model_sizes.ask_hub(named)
    except GatedRepoError:
        advice = "Accept its licence on its page at the hub, then set HF_TOKEN on every node."
        return Finding("hub", "fail", f"{named.key}: {named.model} is gated, and this account has no access", advice)
    except (RepositoryNotFoundError, RevisionNotFoundError):
        of = f" of revision {named.revision}" if named.revision else ""
        advice = f"Correct {named.key}; for a private model set HF_TOKEN on every node."
        return Finding("hub", "fail", f"{named.key}: the hub has no {named.model}{of} that this account sees", advice)
    except Exception as error:  # of httpx, of the hub: none of them shares a class
        said = str(error).strip().partition("\n")[0] or type(error).__name__
        return Finding(
            "hub", "fail", f"{named.key}: {named.model} is not here, and the hub did not answer: {said}", fetch
        )
    size = model_sizes.size_of(named)
    to_fetch = f", {gigabytes(size.bytes)}" if size else ""
    return Finding("hub", "ok", f"{named.key}: {named.model} can be fetched{to_fetch}")
