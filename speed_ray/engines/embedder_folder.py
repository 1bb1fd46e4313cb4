"""Check folders of sentence-transformers and of language models to make embedders of, and load them.

Nothing in a folder is run: pickled weights and code of the folder's own are refused. A driver checks before anything
is spent, and needs no torch for it; whoever loads a folder checks it again, because one of the hub is there only then.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from speed_ray.engines import model_folder
from speed_ray.errors import UserError, nearest

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Pooling = Literal["last", "mean", "cls"]
LIBRARY = "sentence_transformers."  # of the modules that may be loaded


def check_embedder_model(model: str, pooling: Pooling | None) -> None:
    """Check `embedder.model` where it is a folder on this machine. Raises UserError where it cannot be trained."""
    if folder := model_folder.find_folder(model, "embedder.model"):
        check_trainable_folder(folder, pooling)


def check_embedder_folder(path: Path, key: str) -> None:
    """Raise UserError unless sentence-transformers loads the folder without running code; `key` is the recipe's."""
    _refuse_adapter(path, key)
    modules = model_folder.read_modules(path)
    if not modules:
        raise UserError(f"{key}: {path} holds no modules.json, so it is no sentence-transformers model.")
    for kind, name in modules:
        if not kind.startswith(LIBRARY):
            raise UserError(
                f"{key}: {path} needs code of its own ({kind} in modules.json), which is not run.\n"
                "Name a model that consists of sentence-transformers' own modules."
            )
        folder = path / name
        if kind.endswith(".Transformer"):
            _refuse_adapter(folder, key)
            model_folder.check_architecture(folder, key)
            model_folder.check_weights(folder, key)
        elif any(folder.glob("*.bin")):
            model_folder.check_weights(folder, key)
    _check_prompts(path / "config_sentence_transformers.json", key)


def check_trainable_folder(path: Path, pooling: Pooling | None, key: str = "embedder.model") -> None:
    """Raise UserError unless an embedder can be trained that begins with the folder, as far as its files tell.

    Without `pooling` the folder must be one of sentence-transformers, which names its pooling.
    """
    _refuse_adapter(path, key)
    if pooling is not None:
        model_folder.check_transformer_folder(path, key)
        model_folder.check_architecture(path, key)
        return
    if not (path / "modules.json").is_file():
        raise UserError(
            f"embedder.pooling: {path} does not say how to make one vector of its tokens.\n"
            "Set it to last, as is usual for a language model, or to mean or cls."
        )
    check_embedder_folder(path, key)
    kind = model_folder.read_modules(path)[0][0].rpartition(".")[2]
    if kind != "Transformer":
        raise UserError(
            f"{key}: {path} begins with sentence-transformers' {kind}, and only a Transformer can be trained.\n"
            "Name a model that has one; as curate.reference, and to serve, this one will do."
        )


def load_embedder(folder: str, key: str, **arguments: Any) -> "SentenceTransformer":
    """Load a folder or a hub name with sentence-transformers. Raises UserError where it cannot be loaded."""
    from sentence_transformers import SentenceTransformer  # seconds, which a set without a model need not wait

    if Path(folder).is_dir():
        check_embedder_folder(Path(folder), key)
    with model_folder.explain_loading(folder, key):
        return SentenceTransformer(folder, trust_remote_code=False, **arguments)


def _check_prompts(file: Path, key: str) -> None:
    """Raise UserError for prompts that fail once the model is loaded, or once a text is embedded."""
    try:
        config = json.loads(file.read_text("utf-8")) if file.is_file() else {}
        prompts, default = config.get("prompts", {}), config.get("default_prompt_name")
        odd = [name for name, prompt in prompts.items() if not isinstance(prompt, str | None)]
    except (ValueError, AttributeError) as error:
        raise UserError(f"{key}: {file} is no JSON object with `prompts`, each by its name: {error}.") from None
    if odd:
        raise UserError(f"{key}: the prompt {odd[0]!r} in {file} is no text. Write it as one.")
    if default is not None and default not in ("query", "document", *prompts):
        raise UserError(
            f"{key}: default_prompt_name in {file} is {default!r}, which is none of its prompts"
            f"{nearest(str(default), prompts)}."
        )


def _refuse_adapter(path: Path, key: str) -> None:
    if (path / "adapter_config.json").is_file() and not (path / "config.json").is_file():
        raise UserError(
            f"{key}: {path} holds a LoRA adapter without its base model.\n"
            "Merge it into its base (PEFT's merge_and_unload), save both as one model, and name that folder."
        )
