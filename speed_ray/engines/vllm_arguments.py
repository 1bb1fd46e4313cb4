"""Validate vLLM's own arguments without importing vLLM, which takes ten seconds."""

import ast
import functools
import importlib.util
from pathlib import Path
from typing import Any

from speed_ray.errors import UserError, nearest

OURS = ("model", "revision")
PICKLED = ("pt", "npcache")  # load formats that unpickle weights


def check_vllm_arguments(args: dict[str, Any], role: str) -> None:
    """Raise UserError for a name in `<role>.engine_kwargs` that vLLM does not know, or a value that is never taken.

    All other values are checked by engines/vllm.py, where vLLM is.
    """
    valid = _names()
    for name, value in args.items():
        key = f"{role}.engine_kwargs.{name}"
        if valid and name not in valid:
            raise UserError(f"{key}: vLLM has no such argument{nearest(name, valid)}.")
        if name in OURS:
            raise UserError(f"{key}: set {role}.{name} instead.")
        if name == "trust_remote_code" and value:
            raise UserError(f"{key}: a model's own code is never run; choose a model that vLLM knows itself.")
        if name == "load_format" and value in PICKLED:
            raise UserError(f"{key}: {value} weights are pickle, which can run code; convert them to safetensors.")
        if name == "max_model_len" and (type(value) is not int or value < 1):
            raise UserError(f"{key}: write a whole number of tokens, such as 4096 (got {value!r}).")


@functools.cache
def _names() -> frozenset[str]:
    """Return the names of vLLM's engine arguments; empty on a machine without vLLM, which a driver does not need."""
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        return frozenset()
    source = Path(spec.origin).with_name("engine") / "arg_utils.py"
    classes = [node for node in ast.parse(source.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)]
    fields = [field for one in classes if one.name.endswith("EngineArgs") for field in one.body]
    names = (
        field.target.id for field in fields if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    )
    return frozenset(name for name in names if not name.startswith("_"))
