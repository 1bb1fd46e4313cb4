"""Write the page of every recipe key from the models that read one: type, default, and the comment beside the field.

Sections stand in the order of a recipe's YAML; one that is read in several places stands at the first.
"""

import ast
import inspect
import io
import itertools
import json
import tokenize
import types
import typing
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import yaml
from pydantic.fields import FieldInfo

from speed_ray.recipes.renamed_keys import PREVIOUS_NAMES
from speed_ray.recipes.schema import Recipe
from speed_ray.recipes.setting import LocalPath, RuntimeMark, Strict

Model = type[Strict]

INTRODUCTION = """# Recipe keys

Every key, in the order of the YAML; [Recipes](../recipes.md) explains them. A command changes one with `--set`, by its
whole path: `--set synthesize.sampling.temperature=0.7`. An unknown key or a wrong type is refused before anything is
started. A key marked ↻ decides no row and no weight, and may change when a run goes on; any other may not.
"""
HEAD = "| key | value | default | meaning |\n|---|---|---|---|"
PATHS_SHOWN = 3
WORDS = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "`true` or `false`",
    type(None): "`null`",
    Any: "any",
}
BOUNDS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}  # by the attribute of pydantic's marks that holds one


def write_page() -> str:
    """Return the page."""
    return "\n\n".join([INTRODUCTION.rstrip(), *map(_section, sections()), _renamed()])


def sections() -> dict[Model, list[str]]:
    """Map each model that a recipe is read by, in the order of the YAML, to the paths of the keys that hold one."""
    paths: dict[Model, list[str]] = {}
    for path, model in _walk(Recipe, ""):
        paths.setdefault(model, []).append(path)
    return paths


def _walk(model: Model, path: str) -> Iterator[tuple[str, Model]]:
    yield path, model
    for name, field in model.model_fields.items():
        for below in _models(field.annotation):
            yield from _walk(below, f"{path}.{name}".lstrip("."))


def _models(annotation: Any) -> Iterator[Model]:
    """Yield the models within a type, those within its brackets too."""
    if isinstance(annotation, type) and issubclass(annotation, Strict):
        yield annotation
    for part in typing.get_args(annotation):
        yield from _models(part)


def _section(model: Model) -> str:
    title = "Top level" if model is Recipe else f"{_shortened(sections()[model])}{_engine(model)}"
    rows = [_row(model, name, field) for name, field in model.model_fields.items()]
    docstring = "" if model is Recipe else inspect.getdoc(model) or ""
    return "\n\n".join(
        part for part in (f"## {title} {{#{_anchor(model)}}}", docstring, "\n".join([HEAD, *rows])) if part
    )


def _shortened(paths: Sequence[str]) -> str:
    shown = ", ".join(f"`{path}`" for path in paths[:PATHS_SHOWN])
    return shown + (f" and {len(paths) - PATHS_SHOWN} more" if len(paths) > PATHS_SHOWN else "")


def _engine(model: Model) -> str:
    """Return the value by which a union of engines tells this one."""
    field = model.model_fields.get("engine")
    values = typing.get_args(field.annotation) if field else ()
    return f" of engine `{values[0]}`" if len(values) == 1 else ""


def _anchor(model: Model) -> str:
    return model.__name__.lower()


def _row(model: Model, name: str, field: FieldInfo) -> str:
    mark = next((each for each in field.metadata if isinstance(each, RuntimeMark)), None)
    comment = comments(model)[name] or _summary(field.annotation)
    if mark and mark.keys is not None:
        comment += f"; ↻ of these {', '.join(f'`{key}`' for key in mark.keys)}"
    cells = (
        f"`{name}`{' ↻' if mark and mark.keys is None else ''}",
        _type(field.annotation, field.metadata),
        "required" if field.is_required() else _default(field.get_default(call_default_factory=True)),
        comment.lstrip("; "),
    )
    return "|".join(["", *(f" {cell.replace('|', chr(92) + '|')} " for cell in cells), ""])


def _summary(annotation: Any) -> str:
    """Return the first sentence about a key's section, where there is one that a key may hold."""
    models = list(_models(annotation))
    return (inspect.getdoc(models[0]) or "").partition(".")[0] if len(models) == 1 else ""


def _type(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        beside = [mark for each in parts[1:] for mark in (each.metadata if isinstance(each, FieldInfo) else [each])]
        return _type(parts[0], [*beside, *metadata])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type(part) for part in parts))
    if origin is typing.Literal:
        return " or ".join(f"`{value if isinstance(value, str) else json.dumps(value)}`" for value in parts)
    if origin is dict:
        return f"mapping of {_type(parts[0])} to {_type(parts[1])}"
    if origin is list:
        return f"list of {_type(parts[0])}{_length(metadata)}"
    if isinstance(annotation, type) and issubclass(annotation, Strict):
        return f"[{_engine(annotation).removeprefix(' of ') or 'section'}](#{_anchor(annotation)})"
    if LocalPath.__metadata__[0] in metadata:
        return "path or name"
    return WORDS[annotation] + _bounds(metadata)


def _bounds(metadata: Sequence[Any]) -> str:
    """Return the bounds of a number, in brackets."""
    said = [
        f"{sign} {getattr(mark, name)}" for name, sign in BOUNDS.items() for mark in metadata if hasattr(mark, name)
    ]
    return f" ({', '.join(said)})" if said else ""


def _length(metadata: Sequence[Any]) -> str:
    least = next((mark.min_length for mark in metadata if hasattr(mark, "min_length")), 0)
    most = next((mark.max_length for mark in metadata if hasattr(mark, "max_length")), None)
    if not least:
        return ""
    return f", {least} of them" if most == least else f", {least} at least"


def _default(value: Any) -> str:
    """Write a default as YAML; of a section what differs from the section's own defaults."""
    if isinstance(value, Strict):
        value = value.model_dump(mode="json", exclude_unset=True)
    if isinstance(value, dict | list):
        return f"`{yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False).strip()}`"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


@cache
def comments(model: Model) -> dict[str, str]:
    """Return the comment on each field's lines, or right above them; of a field of several classes the nearest's."""
    found: dict[str, str] = {}
    for owner in reversed(model.__mro__):
        if issubclass(owner, Strict):
            found |= {name: text for name, text in _own_comments(owner).items() if text or name not in found}
    return found


def _own_comments(model: Model) -> dict[str, str]:
    source = inspect.getsource(model)
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    at_line = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    alone = {line for line in at_line if source.splitlines()[line - 1].lstrip().startswith("#")}
    found = {}
    for node in ast.parse(source).body[0].body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            above = itertools.takewhile(alone.__contains__, range(node.lineno - 1, 0, -1))
            lines = [*reversed(list(above)), *(line for line in range(node.lineno, node.end_lineno + 1))]
            found[node.target.id] = " ".join(at_line[line] for line in lines if line in at_line)
    return found


def _renamed() -> str:
    rows = [f"| `{old}` | `{new}` |" for new, old in sorted(PREVIOUS_NAMES.items(), key=lambda names: names[1])]
    said = "Some keys had other names before. A recipe that has an old one is refused, and told the new one."
    return "\n\n".join(["## Renamed keys", said, "\n".join(["| old | new |", "|---|---|", *rows])])
