"""Render cards: Markdown with the hub's YAML before it, of templates beside this file.

A card has no time and no path: the same run gives the same card, and publishing it tells nothing of a machine.
"""

from importlib import resources
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

from speed_ray.recipes.schema import Recipe
from speed_ray.storage.fingerprint import identity_fields
from speed_ray.text.language_names import identifier_code


def render(template: str, **values: Any) -> str:
    """Render a template of this folder."""
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"percent": "{:.1%}".format, "number": "{:,}".format}
    text = resources.files(__package__).joinpath(template).read_text(encoding="utf-8")
    return environment.from_string(text).render(**values)


def to_yaml(tree: Any) -> str:
    """Write YAML in the order of the tree, a value a line."""
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=1_000)


def identity_yaml(recipe: Recipe) -> str:
    """Write the settings of a recipe that decide rows and weights: no addresses, headers or paths."""
    return to_yaml(identity_fields(recipe))


def languages_of(recipe: Recipe) -> list[str]:
    """List the codes of a recipe's languages, as far as they have one."""
    return sorted(code for name in recipe.languages if (code := identifier_code(name)))
