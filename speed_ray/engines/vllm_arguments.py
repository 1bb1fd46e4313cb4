"""The names of vLLM's own settings, read from its source: a typo is not worth the ten seconds of importing it."""

import ast
import functools
import importlib.util
from pathlib import Path
from typing import Any

from speed_ray.errors import UserError, nearest


def check_names(args: dict[str, Any], key: str) -> None:
    """Raise UserError for a name in `<key>.args` that vLLM does not know. Values are checked by engines/vllm.py."""
    valid = _names()
    for name in args:
        if valid and name not in valid:
            raise UserError(f"{key}.args.{name}: vLLM has no such argument{nearest(name, valid)}.")


@functools.cache
def _names() -> frozenset[str]:
    """Empty on a machine without vLLM: a driver needs none."""
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
