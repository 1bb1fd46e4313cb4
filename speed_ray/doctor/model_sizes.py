"""Find the models that a recipe names, and how large each is: on this machine, else as the hub says."""

import functools
import json
import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speed_ray.engines import model_folder
from speed_ray.errors import UserError
from speed_ray.recipes.engine_settings import VllmEngine
from speed_ray.recipes.schema import Recipe

HUB_SECONDS = 10.0
BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2}  # of others, such as F8_E4M3, one


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


@dataclass(frozen=True)
class Size:
    """Holds a model's number of parameters and the bytes that they are stored in."""

    parameters: int
    bytes: int


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
        counted = [(count, dtype) for file in folder.glob("*.safetensors") for count, dtype in _tensors(file)]
    elif named.is_of_hub and not os.environ.get("HF_HUB_OFFLINE"):
        try:
            told = ask_hub(named).safetensors
        except Exception:  # the check of the hub says what is wrong
            return None
        counted = [(count, dtype) for dtype, count in told.parameters.items()] if told else []
    else:
        return None
    size = Size(sum(count for count, _ in counted), sum(count * BYTES.get(dtype, 1) for count, dtype in counted))
    return size if counted else None


def _tensors(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the number of values and the type of each tensor of a file, from its head alone."""
    with file.open("rb") as stream:
        head = stream.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        try:
            tensors = json.loads(stream.read(min(length, 1 << 26)))
        except ValueError:
            return
    for name, tensor in tensors.items():
        if name != "__metadata__":
            yield math.prod(tensor["shape"]), tensor["dtype"]
