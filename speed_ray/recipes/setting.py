"""Define what every section of a recipe shares: strict reading, names that must be known, and the mark of settings
that decide no row.

A run's frozen recipe is read whatever an earlier version let pass: its validation has the context `FROZEN`.
"""

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo

from speed_ray import kinds
from speed_ray.errors import nearest
from speed_ray.text.language_names import canonical_name

FROZEN = {"frozen": True}
Weights = dict[str, int]
Names = TypeVar("Names", bound=Collection[str])


def _more_than_zero(share: float | None, info: ValidationInfo) -> float | None:
    if share == 0 and info.context != FROZEN:
        raise ValueError("every two texts reach 0: give it more")
    return share


def _known_kinds(names: Names, info: ValidationInfo) -> Names:
    for name in names if info.context != FROZEN else ():
        refuse_unknown_kind(name)
    return names


def refuse_unknown_kind(name: str) -> None:
    """Raise ValueError for a kind that has no file."""
    if name not in kinds.kind_names():
        raise ValueError(f"there is no kind {name!r}{nearest(name, kinds.kind_names())}")


def _one_name_each(languages: Weights, info: ValidationInfo) -> Weights:
    """Give languages their names, sorted: a row draws by place, whatever order was written."""
    written: dict[str, str] = {}
    for key in languages:
        name = key if info.context == FROZEN else canonical_name(key)
        if name in written:
            raise ValueError(f"{written[name]!r} and {key!r} are one language, {name}: write it once")
        written[name] = key
    return {name: languages[key] for name, key in sorted(written.items())}


def _absolute_path(value: str, info: ValidationInfo) -> str:
    """Make a path absolute where something is there: workers have working directories of their own."""
    if info.context == FROZEN or "://" in value or "{" in value:
        return value
    path = Path(os.path.expanduser(value))  # Path's own fails where there is no such user
    return str(path.absolute()) if os.path.lexists(path) else value


LocalPath = Annotated[str, AfterValidator(_absolute_path)]  # or a name of the hub, a URI, a template's text
Share = Annotated[float, Field(ge=0, le=1)]
Similarity = Annotated[Share, AfterValidator(_more_than_zero)]  # from which texts count as alike
KindNames = Annotated[Names, AfterValidator(_known_kinds)]
LanguageNames = Annotated[Names, AfterValidator(_one_name_each)]


@dataclass(frozen=True)
class RuntimeMark:
    """Mark a setting, or the named keys of a mapping, that determines no row or weight and may change in a resume."""

    keys: Collection[str] | None = None  # None: the whole setting


Setting = TypeVar("Setting")
RuntimeOnly = Annotated[Setting, RuntimeMark()]


class Strict(BaseModel):
    """No unknown key, no silent conversion, no change after loading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
