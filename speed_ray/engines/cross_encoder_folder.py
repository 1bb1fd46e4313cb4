"""Check folders of cross-encoders, which score a query and a text together, without torch."""

import json
from pathlib import Path
from typing import Any

from speed_ray.engines import model_folder
from speed_ray.errors import UserError

HEAD = "ForSequenceClassification"  # ends the name of an architecture that has one
LABELS = 2  # of a configuration that names none


def check_cross_encoder(name: str, key: str) -> Path:
    """Return the folder of a cross-encoder; `key` is the recipe's, for messages.

    Raises UserError where there is no folder, or where its files tell that it is none of a cross-encoder.
    """
    folder = model_folder.ensure_model_folder(name, key)
    if folder is None:
        raise UserError(f"{key}: {name} is no folder on this machine. Download the model and name its folder.")
    model_folder.check_transformer_folder(folder, key)
    model_folder.check_architecture(folder, key)
    _check_head(folder / "config.json", key)
    return folder


def _check_head(file: Path, key: str) -> None:
    """Raise UserError for a model whose head transformers would fill at random, or one of several outputs."""
    try:
        config: dict[str, Any] = json.loads(file.read_text("utf-8"))
        architectures = [str(name) for name in config.get("architectures") or ()]
        labels = len(config["id2label"]) if "id2label" in config else LABELS
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{key}: {file} is no configuration of transformers: {error}.") from None
    if not any(name.endswith(HEAD) for name in architectures):
        raise UserError(
            f"{key}: {file.parent} is no cross-encoder: its architecture is "
            f"{', '.join(architectures) or 'not named'}, and none of {HEAD}.\n"
            "Name a model that was trained to score pairs of query and text."
        )
    if labels != 1:
        raise UserError(
            f"{key}: {file.parent} has {labels} outputs (id2label in {file.name}), and one is needed: how well a text "
            "answers a query.\nName a reranker; a classifier of entailment or of topics will not do."
        )
