"""Which model is served: a run's trained embedder, a folder, or a name of the Hugging Face Hub."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from speed_ray.errors import UserError
from speed_ray.storage.run import Run
from speed_ray.storage.trained_models import Model
from speed_ray.training.plan import EMBEDDER


@dataclass(frozen=True)
class Served:
    """A model under its name. `fetch` returns a local folder, or a name of the Hub, wherever it is called."""

    name: str
    fetch: Callable[[], str]


def resolve_served_model(model: str) -> Served:
    """Tell a run, a model folder and a name of the Hub apart. Raises UserError where there is nothing to serve."""
    folder = Path(model)
    if (folder / "modules.json").is_file():
        place = str(folder.resolve())
        return Served(folder.resolve().name, lambda: place)
    if folder.is_dir() or "://" in model:
        trained = Model(Run(str(folder.resolve()) if folder.is_dir() else model), EMBEDDER)
        if folder.is_dir() and not (folder / "recipe.yaml").is_file():
            raise UserError(
                f"{model} is neither a run (it has no recipe.yaml) nor a sentence-transformers model (it has no "
                "modules.json).\nName one of the two, or a model of the Hugging Face Hub."
            )
        trained.published()
        return Served(EMBEDDER, lambda: str(trained.fetch()))
    if folder.is_absolute() or model.startswith("."):
        raise UserError(f"{model}: there is no such folder.")
    _check_hub(model)
    return Served(model, lambda: model)


def _check_hub(name: str) -> None:
    try:
        hf_hub_download(name, "modules.json")
    except (HFValidationError, HfHubHTTPError, OSError) as error:
        raise UserError(
            f"{name} is no folder here, and as a sentence-transformers model of the Hugging Face Hub it was not "
            f"found:\n{str(error).strip().splitlines()[0]}"
        ) from None
