"""Recipes are read here: YAML, by name among the files beside this one or by path, with `--set a.b=c` on top.

Unknown keys, wrong types and secrets are reported with the key's path and the nearest valid name, before anything is
started or spent.
"""

import typing
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ValidationError

from speed_ray.errors import UserError, nearest
from speed_ray.recipes.plain_yaml import load_plain_yaml, parse_yaml
from speed_ray.recipes.renamed_keys import current_name
from speed_ray.recipes.schema import Recipe
from speed_ray.recipes.setting import FROZEN
from speed_ray.recipes.written_values import check_written_values


def load_recipe(name_or_path: str, overrides: typing.Sequence[str] = ()) -> Recipe:
    """Read a recipe by name or path, lay `a.b=c` overrides over it and check it. Raises UserError, never spends.

    >>> load_recipe("miniature", ["synthesize.examples=100"]).synthesize.examples
    100
    """
    text, origin = _read(name_or_path)
    tree = parse_yaml(text, origin)
    for override in overrides:
        _set(tree, override)
    check_written_values(tree, origin)
    return validate(tree, origin)


def validate(tree: dict[str, Any], origin: str, frozen: bool = False) -> Recipe:
    """Turn a plain tree into a Recipe, or raise UserError that names every wrong key.

    `frozen` lets names and bounds pass that an earlier version did not look at.
    """
    try:
        return Recipe.model_validate(tree, context=FROZEN if frozen else None)
    except ValidationError as error:
        wrong = [
            each for each in error.errors() if each["loc"][-1:] != ("literal[False]",)
        ]  # `dpo: false` or a mapping
        raise UserError("\n".join([f"{origin} is not a valid recipe:", *map(_explain, wrong)])) from None


def validate_frozen(tree: dict[str, Any], origin: str) -> Recipe:
    """Turn a run's frozen recipe into a Recipe, even one that an earlier version froze, under other names of keys."""
    return validate(_with_current_names(tree, [Recipe]), origin, frozen=True)


def dump_yaml(recipe: Recipe) -> str:
    """Write a recipe out in full, as `recipe.yaml` of a run holds it."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def recipe_names() -> list[str]:
    """List the recipes that come with the package."""
    files = [entry.name for entry in resources.files(__name__).iterdir()]
    return sorted(name.removesuffix(".yaml") for name in files if name.endswith(".yaml"))


def _read(name_or_path: str) -> tuple[str, str]:
    if name_or_path in recipe_names():
        return resources.files(__name__).joinpath(f"{name_or_path}.yaml").read_text(), name_or_path
    path = Path(name_or_path)
    try:
        if not path.is_file():
            hint = nearest(name_or_path, recipe_names())
            raise UserError(f"--recipe {name_or_path}: no such file, and no recipe of that name{hint}")
        return path.read_text(encoding="utf-8"), str(path)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error}") from None
    except OSError as error:
        raise UserError(f"--recipe {path} cannot be read: {error.strerror}.") from None


def _set(tree: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise UserError(f"--set {override}: write it as key=value, for example --set synthesize.examples=100")
    *parents, last = key.split(".")
    for parent in parents:
        branch = tree.setdefault(parent, {})
        if branch is False:
            raise UserError(f"--set {override}: {parent} is false in this recipe; set {parent} itself first")
        if not isinstance(branch, dict):
            raise UserError(f"--set {override}: {parent} is a value, it has no keys below it")
        tree[parent] = tree = dict(branch)  # what a YAML anchor shares with another key is not that key's any more
    try:
        tree[last] = load_plain_yaml(value)
    except ValueError as error:
        raise UserError(f"--set {override}: the value is not valid YAML: {error}") from None


_TAGS = ("vllm", "openai", "simulated", "scripted")


def _explain(error: Any) -> str:
    location = [str(part) for part in error["loc"] if part not in (*_TAGS, "Dpo")]
    if location[-1:] == ["[key]"]:  # of a mapping, before which the name itself stands
        location = location[:-2]
    key = ".".join(location) or "recipe"
    if error["type"] == "extra_forbidden":
        valid = [name for model in _models_at(error["loc"][:-1]) for name in model.model_fields]
        if renamed := current_name(location[-1], valid):
            return f"  {key}: renamed to {'.'.join([*location[:-1], renamed])}"
        return f"  {key}: there is no such key{nearest(location[-1], valid)}"
    if error["type"] == "missing":
        return f"  {key}: this key is required"
    if error["type"] in ("union_tag_not_found", "union_tag_invalid"):
        return f"  {key}.engine: choose one of {', '.join(_TAGS)}"
    if error["type"] == "string_type" and isinstance(error["input"], bool):
        return f"  {key}: YAML takes no and off for false, yes and on for true: write the word in quotes, as in 'no'"
    return f"  {key}: {error['msg'].removeprefix('Value error, ')} (got {error['input']!r}){_as_number(error)}"


def _as_number(error: Any) -> str:
    """YAML 1.1 takes 1e-4 for text, and most people do not."""
    if error["type"] != "float_type" or not isinstance(error["input"], str):
        return ""
    try:
        meant = yaml.safe_dump(float(error["input"])).split()[0]
    except ValueError:
        return ""
    return f": YAML takes that for text; write {meant}"


def _models_at(location: tuple[Any, ...]) -> list[type[BaseModel]]:
    """Find the models whose keys are valid at a location of the recipe, by walking the models' own annotations."""
    models: list[type[BaseModel]] = [Recipe]
    for part in location:
        if part == "Dpo" or isinstance(part, int):  # one side of `dpo: Dpo | Literal[False]`; an index of a list
            continue
        tagged = [
            o for o in models if "engine" in o.model_fields and o.model_fields["engine"].annotation == Literal[part]
        ]
        models = tagged or _models_below(models, part)
    return models


def _models_below(models: list[type[BaseModel]], key: str) -> list[type[BaseModel]]:
    fields = [model.model_fields[key] for model in models if key in model.model_fields]
    return [below for field in fields for below in models_in(field.annotation)]


def _with_current_names(tree: dict[str, Any], models: list[type[BaseModel]]) -> dict[str, Any]:
    valid = [name for model in models for name in model.model_fields]
    renamed = {key if key in valid else current_name(key, valid) or key: value for key, value in tree.items()}
    return {
        key: _with_current_names(value, _models_below(models, key)) if isinstance(value, dict) else value
        for key, value in renamed.items()
    }


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """List the models that a key's annotation names."""
    found = [annotation] if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []
    return found + [model for part in typing.get_args(annotation) for model in models_in(part)]
