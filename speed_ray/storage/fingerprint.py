"""Fingerprint what determines rows, which a resume may not change: recipe settings and our own code. Label models."""

import ast
import functools
import hashlib
import importlib
import inspect
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from speed_ray.recipes.engine_settings import EngineConfig, VllmEngine
from speed_ray.recipes.setting import RuntimeMark

PACKAGE = Path(__file__).parents[1]
# The packages whose modules determine rows. Of the others, records.py determines ids and seeds, which a test pins.
_CODE_OF_ROWS = tuple(
    f"{PACKAGE.name}.{name}." for name in ("curation", "documents", "kinds", "prompts", "stages", "text")
)
_PATHS = ("/", "./", "../", "~")


def identity_fields(model: BaseModel) -> dict[str, Any]:
    """Return the settings of a recipe, or of one engine in it, that determine its rows: all but the marked ones.

    What lies at a path (topics, prompts, weights) is in the plans by its digest, so the path itself is not: folders
    move, and nodes mount them elsewhere.
    """
    dumped, fields = model.model_dump(mode="json"), {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        mark = next((each for each in field.metadata if isinstance(each, RuntimeMark)), None)
        if mark is None:
            fields[name] = identity_fields(value) if isinstance(value, BaseModel) else _without_paths(dumped[name])
        elif mark.keys is not None:
            fields[name] = _without_paths({key: below for key, below in dumped[name].items() if key not in mark.keys})
    return fields


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_paths(below) for key, below in value.items()}
    return "(a path)" if isinstance(value, str) and _is_path(value) else value


def _is_path(value: str) -> bool:
    return value.startswith(_PATHS) or "/models/" in value  # the second: a run's own model, on any storage


def code_digests(*modules: str, unused: Collection[str] = ()) -> dict[str, str]:
    """Hash the code of the given modules and of all that they import from the packages that determine rows.

    Names are without the package's: {"text.rules": "ab12..."}. Modules in `unused`, named likewise, are left out, with
    all that only they import.
    """
    digests: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        name = module.removeprefix(f"{PACKAGE.name}.")
        if name not in digests and name not in unused:
            digests[name], imported = _parsed(module_source(module))
            waiting += imported
    return digests


def module_source(module: str) -> str:
    """Read the source of a module by its full name."""
    return inspect.getsource(importlib.import_module(module))


@functools.cache
def _parsed(source: str) -> tuple[str, list[str]]:
    """Return the digest of a module's syntax tree, without comments and docstrings, and the modules it imports."""
    tree = ast.parse(source)
    imported = [name for name in _imported_names(tree) if name.startswith(_CODE_OF_ROWS) and _is_module(name)]
    digest = hashlib.sha256(ast.dump(_WithoutDocstrings().visit(tree)).encode()).hexdigest()
    return digest[:16], imported


def _imported_names(tree: ast.Module) -> Iterator[str]:
    """Yield every dotted name that is imported: of `from a import b` both `a` and `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))


def _is_module(name: str) -> bool:
    return PACKAGE.parent.joinpath(*name.split(".")).with_suffix(".py").is_file()


class _WithoutDocstrings(ast.NodeTransformer):
    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        """Drop a string that is a statement of its own."""
        return None if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str) else node


def without_adapter(config: EngineConfig) -> EngineConfig:
    """Return the config without its LoRA adapter; configs equal after this can share one engine."""
    return config.model_copy(update={"adapter": None}) if isinstance(config, VllmEngine) else config


def model_label(config: EngineConfig) -> str:
    """Return the model's name in records: "junior" for a model of a run, else its full name."""
    model = (config.adapter if isinstance(config, VllmEngine) else None) or config.model
    return Path(model).name if _is_path(model) else model
