"""Collect what cannot be read of a run, so that the rest of its report is written all the same."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from speed_ray.errors import Interrupted, UserError
from speed_ray.report.shown_text import TEXT, shown_text

P = ParamSpec("P")
T = TypeVar("T")
# A damaged file says so itself; a file of an older version, or one that is half written, lacks a key or a column.
UNREADABLE = (Interrupted, UserError, LookupError, TypeError, ValueError, AttributeError, OSError)


class Faults:
    """Holds a sentence about each thing that could not be read."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}  # by what is missing in the report because of it

    def read(self, what: str, otherwise: Any, reader: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what a reader returns for its arguments; where it fails, note why and return the other value."""
        try:
            return reader(*args, **kwargs)
        except UNREADABLE as error:
            said = str(error) if isinstance(error, (Interrupted, UserError)) else f"{type(error).__name__}: {error}"
            self.found[what] = shown_text(said, TEXT)
            return otherwise
