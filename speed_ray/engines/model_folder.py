"""Identify, fetch and validate model folders, and count tokens, without torch.

The driver does this before Ray starts, so that a wrong folder costs a second and not a cluster's minutes.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from speed_ray.engines.gguf_folder import SUFFIX, ensure_converted, gguf_digest
from speed_ray.engines.packaged_models import PACKAGE, find_packaged_model
from speed_ray.errors import Interrupted, UserError
from speed_ray.recipes.engine_settings import VllmEngine
from speed_ray.storage.trained_models import fetch_model, find_model

MINIATURE = "miniature://"
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
TOKENIZERS = (
    *(("tokenizer.json",), ("tokenizer.model",), ("vocab.json", "merges.txt")),
    *(("vocab.txt",), ("spiece.model",), ("sentencepiece.bpe.model",)),
)

# What changes an answer or a vector: configurations (the end-of-sequence ids are in generation_config.json, prompts in
# config_sentence_transformers.json), tokenizers and templates, which are read whole, and weights.
CONFIG_SUFFIXES = (".json", ".jinja", ".txt", ".model", ".tiktoken")
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt")
WINDOW = 1 << 20  # bytes
WINDOWS = 16  # of one weights file; a finetune that leaves the first and the last tensor alone still shows


def identify_model(model: str, key: str) -> str | None:
    """Return a digest of the weights that a recipe's `model` names, or None when it is a hub name.

    It only reads: a folder's digest is of its files, a GGUF file's of its content, that of `<run>/models/<name>` is in
    its manifest, and that of `miniature://<name>` is of the code that trains it.
    Raises UserError when it looks like a path and nothing is there.
    """
    if model.startswith(MINIATURE):
        from speed_ray.miniature import base_model  # its world, which other models do not need

        return base_model.base_digest(model.removeprefix(MINIATURE))
    if _is_trained(model):
        digest: str = find_model(model).published()["digest"]
        return digest
    path = _path_on_disk(model, key)
    if path is None:
        return None
    return folder_digest(path) if path.is_dir() else gguf_digest(path)


def ensure_model_folder(model: str, key: str = "generator.model") -> Path | None:
    """Return the local folder of a recipe's `model`, made or downloaded if needed, or None when it is a hub name.

    `miniature://<name>` is trained and a GGUF file converted on first use, `package://<name>` lies in a Python
    package, and `<run>/models/<name>` is a model that a run trained, on any storage.
    Raises UserError when it looks like a path and nothing is there.
    """
    if model.startswith(MINIATURE):
        from speed_ray.miniature import base_model

        return base_model.ensure_base_model(model.removeprefix(MINIATURE))
    return fetch_model(model) if _is_trained(model) else _folder_on_disk(model, key)


def fetch_model_folder(model: str, revision: str | None, key: str) -> Path:
    """Return the folder that a recipe's `model` names, downloaded where it is a hub name.

    `key` is the recipe's key of the model, for messages. Raises UserError where there is no such
    folder, and Interrupted where the hub does not answer.
    """
    folder = ensure_model_folder(model, key)
    if folder is not None:
        return folder
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, revision=revision))
    except Exception as error:  # of httpx, of the hub, or of the file system: none of them says for what
        raise Interrupted(
            f"{key}: {model} could not be fetched: {error}\n"
            "Run the same command again with a network, or name a folder that every node sees."
        ) from error


def find_folder(model: str, key: str) -> Path | None:
    """Return the folder that a recipe's `model` names on this machine; None for a hub name, or what a run makes.

    Raises UserError when it looks like a path and nothing is there.
    """
    return None if model.startswith(MINIATURE) or _is_trained(model) else _folder_on_disk(model, key)


@contextlib.contextmanager
def explain_loading(model: str | Path, key: str) -> Iterator[None]:
    """Turn what transformers and sentence-transformers raise for a model that they cannot load into a UserError."""
    try:
        yield
    except (UserError, Interrupted, MemoryError):
        raise
    except Exception as error:  # of the libraries, of safetensors or of the file system, without a common class
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"{key}: {model} cannot be loaded: {said[0]}\nName another model, or save this one anew with the versions "
            "of transformers and sentence-transformers that are installed here."
        ) from error


def ensure_checked_folder(config: VllmEngine, key: str) -> Path | None:
    """Return the local folder of an engine's model as `ensure_model_folder` does, checked by `check_model_folder`."""
    folder = ensure_model_folder(config.model, f"{key}.model")
    if folder is not None:
        check_model_folder(folder, config.chat_template, key, wants_template=not config.completion)
    return folder


def check_model_folder(
    path: Path, chat_template: str | None, key: str = "generator", wants_template: bool = True
) -> None:
    """Raise UserError unless vLLM can load the folder and prompts can be written for it.

    `chat_template` is the recipe's own (text or file), which a model without one needs; `key` is the engine's.
    """
    check_transformer_folder(path, f"{key}.model")
    if wants_template and chat_template is None and not _has_chat_template(path):
        raise UserError(
            f"{key}.chat_template: {path} has no chat template, as is usual for a base model.\n"
            f"Set this key to Jinja text or to a file with it, so that prompts can be written for the model."
        )
    if chat_template is not None:
        read_chat_template(chat_template, key)


def check_transformer_folder(path: Path, key: str) -> None:
    """Raise UserError unless the folder holds a model of transformers; `key` is the recipe's key of the model."""
    if not path.is_dir():
        raise UserError(f"{key}: there is no model folder {path}.")
    if not (path / "config.json").is_file():
        raise UserError(f"{key}: {path} holds no config.json, so it is not a model folder of transformers.")
    if not any(all((path / name).is_file() for name in names) for names in TOKENIZERS):
        raise UserError(
            f"{key}: {path} holds no tokenizer (tokenizer.json).\n"
            f"Save the tokenizer that the model was trained with into the same folder."
        )
    check_weights(path, key)


def check_architecture(path: Path, key: str) -> None:
    """Raise UserError where transformers needs the folder's own code to make its model."""
    config = _read_json(path / "config.json") if (path / "config.json").is_file() else {}
    if "auto_map" not in config:
        return
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES  # seconds, for few folders

    if config.get("model_type") not in CONFIG_MAPPING_NAMES:
        raise UserError(
            f"{key}: {path} needs code of its own (auto_map in config.json), which is not run.\n"
            "Name a model of an architecture that transformers has."
        )


def check_weights(path: Path, key: str) -> None:
    """Raise UserError unless the folder holds whole weights as safetensors."""
    index = path / "model.safetensors.index.json"
    shards = set(_read_json(index).get("weight_map", {}).values()) if index.is_file() else set()
    if missing := sorted(shard for shard in shards if not (path / str(shard)).is_file()):
        raise UserError(
            f"{key}: {path} lacks {len(missing)} of the {len(shards)} files of its weights, {missing[0]} among them.\n"
            f"Copy or download the folder again, whole."
        )
    if any(path.glob("*.safetensors")):
        return
    if any(path.glob("*.bin")) or any(path.glob("*.pt")):
        raise UserError(
            f"{key}: {path} holds its weights as pickle (*.bin), which can run code and is not loaded.\n"
            f"Convert them: load the model with transformers and call save_pretrained, which writes safetensors."
        )
    raise UserError(f"{key}: {path} holds no weights (*.safetensors).")


def check_adapter_folder(path: Path, key: str = "generator") -> int:
    """Return the rank of a LoRA folder, or raise UserError for one that cannot be loaded; `key` is the engine's."""
    config = path / "adapter_config.json"
    if not config.is_file():
        raise UserError(f"{key}.adapter: {path} holds no adapter_config.json, so it is not a LoRA folder of peft.")
    check_weights(path, f"{key}.adapter")
    rank = _read_json(config).get("r")
    if not isinstance(rank, int):
        raise UserError(f"{key}.adapter: {config} names no rank `r`, so it is no LoRA.")
    return rank


def read_chat_template(value: str, key: str = "generator") -> str:
    """Return Jinja text: the recipe's value itself, or what the file that it names holds; `key` is the engine's."""
    if "{" in value:
        return value
    path = Path(value).expanduser()
    if not path.is_file():
        raise UserError(f"{key}.chat_template: {value} is neither Jinja text nor a file.")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{key}.chat_template: {value} is not UTF-8 text ({error}). Save it as UTF-8.") from None


def folder_digest(path: Path) -> str:
    """Fingerprint a model or adapter folder by content, reading about 64 MiB of a 16 GB model.

    Read are the folder's own files and those of its sentence-transformers modules, whole but for weights. A weights
    file gives its name, its size and up to 16 even windows of 1 MiB, the first and the last among them.
    """
    digest = hashlib.blake2b(digest_size=16)
    for file in _files_of_model(path):
        if file.suffix in CONFIG_SUFFIXES:
            _add(digest, file.relative_to(path).as_posix(), file.read_bytes())
        elif file.suffix in WEIGHT_SUFFIXES:
            _add(digest, file.relative_to(path).as_posix(), _sample(file))
    return digest.hexdigest()


def _files_of_model(path: Path) -> list[Path]:
    """List a model's files: those in its folder, and all below the folders of its sentence-transformers modules."""
    modules = [path / name for _, name in read_modules(path) if name]
    found = {file for file in path.iterdir() if file.is_file()}
    found |= {file for module in modules for file in module.rglob("*") if file.is_file()}
    return sorted(file for file in found if not file.name.startswith("."))


def read_modules(path: Path) -> list[tuple[str, str]]:
    """Return type and folder of each module of a sentence-transformers folder; none where it is not one."""
    file = path / "modules.json"
    if not file.is_file():
        return []
    try:
        modules = [(str(module["type"]), str(module["path"])) for module in json.loads(file.read_text("utf-8"))]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file} is no list of modules with `type` and `path` ({error!r}). Save the model anew."
        ) from None
    for _, name in modules:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise UserError(f"{file} names {name!r}, which is no folder in it. Save the model anew.")
    return modules


def read_window(path: Path) -> int | None:
    """Return the tokens of a model's window as its config.json has them; None where it is scaled or not said."""
    config = _read_json(path / "config.json")
    window = config.get("max_position_embeddings")
    return window if isinstance(window, int) and not config.get("rope_scaling") else None


def count_tokens(path: Path, texts: Sequence[str]) -> list[int]:
    """Count the tokens of each text, without special ones, by the folder's own tokenizer.json."""
    tokenizer = load_tokenizer(path, "generator.model")
    return [len(encoding.ids) for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]


def load_tokenizer(path: Path, key: str) -> Tokenizer:
    """Load a folder's tokenizer.json, which cuts no text. Raises UserError, which names the recipe's `key`."""
    file = tokenizer_file(path, key)
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises plain ones
        raise UserError(f"{file} cannot be read as a tokenizer: {error}. Save the model's own there again.") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def tokenizer_file(path: Path, key: str) -> Path:
    """Find a model folder's tokenizer.json; one of sentence-transformers may hold it in its first module."""
    places = [path, *(path / name for _, name in read_modules(path)[:1])]
    found = next((place / "tokenizer.json" for place in places if (place / "tokenizer.json").is_file()), None)
    if found is None:
        raise UserError(f"{key}: {path} holds no tokenizer.json, so no text can be measured by it.")
    return found


def _is_trained(model: str) -> bool:
    if model.startswith(PACKAGE):
        return False
    return "://" in model or (Path(model).expanduser() / "_MANIFEST.json").is_file()


def _folder_on_disk(model: str, key: str) -> Path | None:
    path = _path_on_disk(model, key)
    return path if path is None or path.is_dir() else ensure_converted(path, key)


def _path_on_disk(model: str, key: str) -> Path | None:
    """Return the folder or the GGUF file that a recipe's `model` names, or None when it is a hub name."""
    if model.startswith(PACKAGE):
        return find_packaged_model(model, key)
    path = Path(model).expanduser()
    is_gguf = path.suffix.lower() == SUFFIX
    if path.is_dir() or (is_gguf and path.is_file()):
        return path
    if HUB_NAME.fullmatch(model) and not path.exists() and not is_gguf:
        return None
    raise UserError(
        f"{key}: there is no {'GGUF file' if is_gguf else 'model folder'} {model}.\n"
        "Give a folder or a GGUF file that every node sees, or a hub name."
    )


def _has_chat_template(path: Path) -> bool:
    if (path / "chat_template.jinja").is_file():
        return True
    config = path / "tokenizer_config.json"
    return config.is_file() and bool(_read_json(config).get("chat_template"))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path} must hold a JSON object.")
    return tree


def _sample(path: Path) -> bytes:
    """Sample a file: its size and evenly spaced windows, or the whole of a small one."""
    size = path.stat().st_size
    if size <= WINDOW * WINDOWS:
        return path.read_bytes()
    step = (size - WINDOW) / (WINDOWS - 1)
    parts = [size.to_bytes(8, "little")]
    with path.open("rb") as file:
        for index in range(WINDOWS):
            file.seek(round(index * step))
            parts.append(file.read(WINDOW))
    return b"".join(parts)


def _add(digest: hashlib.blake2b, name: str, content: bytes) -> None:
    for part in (name.encode(), content):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
