"""Convert a GGUF file into a folder of transformers, once on a machine: vLLM and training load it as any other.

Weights are dequantised to float32, 4 bytes a parameter on disk, with tokenizer, chat template and end tokens.
"""

import functools
import hashlib
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speed_ray.errors import UserError
from speed_ray.storage.cached_folder import ensure_cached_folder
from speed_ray.storage.store import cache_folder
from speed_ray.storage.trained_models import file_fingerprint

if TYPE_CHECKING:
    from gguf import GGUFReader

SUFFIX = ".gguf"
SHARD = "5GB"  # of a safetensors file at most
END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")  # below tokenizer.ggml
# Ends of turns that files name only by their text: llama.cpp stops at these too, whatever the file's own keys say.
END_TOKENS = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|eom_id|>", "<turn|>")
BOS_PRE = (
    "llama-bpe",
    "llama3",
    "llama-v3",
    "tekken",
)  # tokenizers whose BOS llama.cpp adds where no key speaks of it


def gguf_digest(file: Path) -> str:
    """Return the sha256 of a GGUF file, read once in a process."""
    status = file.stat()
    return _digest(file, status.st_size, status.st_mtime_ns)


@functools.cache  # 5 GB take seconds, and the plan of each stage asks
def _digest(file: Path, size: int, modified: int) -> str:
    digest: str = file_fingerprint(file)["sha256"]
    return digest


def ensure_converted(file: Path, key: str) -> Path:
    """Return the folder of a GGUF file's model, converted where this machine does not have it yet.

    The cache keeps one folder for each content, release of transformers and state of this module. `key` is the
    recipe's key of the model. Raises UserError where the file is none of GGUF, or its model cannot be converted.
    """
    made_from = gguf_digest(file) + version("transformers") + Path(__file__).read_text("utf-8")
    folder = cache_folder() / f"gguf-{hashlib.blake2b(made_from.encode(), digest_size=16).hexdigest()}"
    return ensure_cached_folder(folder, functools.partial(_convert, file, key), f"converting {file}")


def _convert(file: Path, key: str, folder: Path) -> None:
    reader = _read_header(file, key)
    model, tokenizer = _load(file, reader, key)
    model.generation_config.eos_token_id = _end_tokens(reader)
    model.save_pretrained(folder, max_shard_size=SHARD)
    tokenizer.save_pretrained(folder)


def _read_header(file: Path, key: str) -> "GGUFReader":
    """Read a file's metadata and table of tensors. Raises UserError where it is no whole GGUF file of one model."""
    from gguf import GGUFReader

    try:
        reader = GGUFReader(file)
    except Exception as error:  # of the library, or of numpy where the file ends early
        raise UserError(f"{key}: {file} is no whole GGUF file: {error}\nDownload or copy it again.") from error
    architecture = _value(reader, "general.architecture", None)
    if architecture is None:
        raise _refusal(file, key, "it names no architecture")
    if (kind := _value(reader, "general.type", "model")) != "model":
        raise _refusal(file, key, f"it holds no model but something of type {kind}")
    if (parts := _value(reader, "split.count", 1)) > 1:
        raise UserError(f"{key}: {file} is one of {parts} parts.\nJoin them with `llama-gguf-split --merge` first.")
    scaled = any(tensor.name.startswith("rope_") for tensor in reader.tensors)
    if scaled or _value(reader, f"{architecture}.rope.scaling.type", "none") != "none":
        raise _refusal(file, key, "it scales its rotary positions, which transformers leaves out when it reads GGUF")
    return reader


def _load(file: Path, reader: "GGUFReader", key: str) -> tuple[Any, Any]:
    """Load a file's model in float32 and its tokenizer. Raises UserError where transformers cannot, or not wholly."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    architecture = _value(reader, "general.architecture", None)
    dense = GgufConfig(dequantize=True)  # else what is loaded cannot be saved
    with tempfile.TemporaryDirectory() as alone:  # no file beside it is to be read
        Path(alone, file.name).symlink_to(file.absolute())
        source: dict[str, Any] = {"pretrained_model_name_or_path": alone, "gguf_file": file.name}
        try:
            tokenizer = AutoTokenizer.from_pretrained(**source, add_bos_token=_adds_bos(reader))
            model, loading = AutoModelForCausalLM.from_pretrained(
                **source, dtype=torch.float32, quantization_config=dense, output_loading_info=True
            )
        except MemoryError:
            raise
        except Exception as error:  # of transformers, gguf or numpy, without a common class
            said = str(error).strip().splitlines() or [type(error).__name__]
            raise _refusal(
                file, key, f"transformers cannot load its architecture, {architecture}: {said[0]}"
            ) from error
    if missing := sorted(loading["missing_keys"]):
        raise _refusal(file, key, f"it lacks {len(missing)} of {architecture}'s weights, {missing[0]} among them")
    return model, tokenizer


def _adds_bos(reader: "GGUFReader") -> bool:
    """Tell whether a text begins with the BOS token; transformers leaves that out when it reads GGUF.

    Gemma 3 270M without it continued "The capital of France is" with "France. The The The The".
    """
    default = (
        _value(reader, "tokenizer.ggml.model", "") == "llama" or _value(reader, "tokenizer.ggml.pre", "") in BOS_PRE
    )
    return bool(_value(reader, "tokenizer.ggml.add_bos_token", default))


def _end_tokens(reader: "GGUFReader") -> list[int]:
    """Return the ids of all tokens that end a reply: those of the file's keys, and known ends of turns."""
    named = {_value(reader, f"tokenizer.ggml.{key}", None) for key in END_KEYS} - {None}
    tokens = _value(reader, "tokenizer.ggml.tokens", [])
    return sorted(named | {index for index, token in enumerate(tokens) if token in END_TOKENS})


def _value(reader: "GGUFReader", key: str, default: Any) -> Any:
    field = reader.get_field(key)
    return default if field is None else field.contents()


def _refusal(file: Path, key: str, why: str) -> UserError:
    return UserError(
        f"{key}: {file} cannot be converted: {why}.\nName a folder of safetensors or a hub name of the model instead."
    )
