"""Find whether the models that a recipe names by the hub can be had: from this machine's cache, or from the hub."""

import os
from collections.abc import Iterator, Sequence

from speed_ray.doctor import model_sizes
from speed_ray.doctor.finding import Finding, gigabytes
from speed_ray.doctor.model_sizes import NamedModel

FETCH = "Fetch it where there is a network (`hf download {model}`), or name a folder that every node sees as {key}."


def check_hub(models: Sequence[NamedModel]) -> Iterator[Finding]:
    """Find whether each model of the hub is here already, or may be fetched."""
    for named in models:
        if named.is_of_hub:
            yield _check_model(named)


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
