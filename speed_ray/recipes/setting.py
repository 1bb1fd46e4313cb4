"""Define what every section of a recipe shares: strict reading, and the mark of settings that decide no row."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class RuntimeMark:
    """Mark a setting, or the named keys of a mapping, that determines no row or weight and may change in a resume."""

    keys: Collection[str] | None = None  # None: the whole setting


Setting = TypeVar("Setting")
RuntimeOnly = Annotated[Setting, RuntimeMark()]


class Strict(BaseModel):
    """No unknown key, no silent conversion, no change after loading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
