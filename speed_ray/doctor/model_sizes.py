"""Find the models that a recipe names, and how large each is: on this machine, else as the hub says."""

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speed_ray.engines import model_folder
from speed_ray.engines.weight_files import Size, add_up, read_size
from speed_ray.errors import UserError
from speed_ray.recipes.engine_settings import VllmEngine
from speed_ray.recipes.schema import Recipe

HUB_SECONDS = 10.0


@dataclass(frozen=True)
class NamedModel:
    """Holds a model as a recipe names it, and the key by which it does."""

    key: str
    model: str
    revision: str | None = None

    @property
    def is_of_hub(self) -> bool:
        """Tell whether the name is one of the hub's, and no folder or URI."""
        return bool(model_folder.HUB_NAME.fullmatch(self.model)) and not Path(self.model).expanduser().exists()


def models_of(recipe: Recipe) -> list[NamedModel]:
    """List the models that a recipe loads, each once."""
    named = [
        NamedModel(f"{role}.model", config.model, config.revision)
        for role, config in (("generator", recipe.generator), ("teacher", recipe.teacher))
        if isinstance(config, VllmEngine)
    ]
    if recipe.embedder:
        named.append(NamedModel("embedder.model", recipe.embedder.model, recipe.embedder.revision))
    if recipe.curate.reference:
        named.append(NamedModel("curate.reference", recipe.curate.reference))
    if recipe.score:
        named += [NamedModel(f"score.cross_encoders.{key}", it) for key, it in recipe.score.cross_encoders.items()]
    return list({(each.model, each.revision): each for each in reversed(named)}.values())[::-1]


def folder_of(named: NamedModel) -> Path | None:
    """Return a model's folder on this machine, in the hub's cache too; None where it is not there yet."""
    if not named.is_of_hub:
        try:
            return model_folder.find_folder(named.model, named.key)
        except UserError:  # preflight says what is wrong with it
            return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(named.model, revision=named.revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


@functools.cache
def ask_hub(named: NamedModel) -> Any:
    """Return what the hub says of a model that this account may fetch. Raises huggingface_hub's errors."""
    from huggingface_hub import HfApi

    hub = HfApi()
    told = hub.model_info(named.model, revision=named.revision, timeout=HUB_SECONDS)
    if told.gated:
        hub.auth_check(named.model)
    return told


def size_of(named: NamedModel) -> Size | None:
    """Return a model's size by the heads of its weights, or by what the hub says of them; None where nobody can."""
    folder = folder_of(named)
    if folder is not None:
        return read_size(folder)
    if not named.is_of_hub or os.environ.get("HF_HUB_OFFLINE"):
        return None
    try:
        told = ask_hub(named).safetensors
    except Exception:  # the check of the hub says what is wrong
        return None
    return add_up((count, dtype) for dtype, count in told.parameters.items()) if told else None
