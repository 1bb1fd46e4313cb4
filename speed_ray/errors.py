"""Define the errors that end a job early, with their exit codes. A message says what happened, where, what to do."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """The user can put this right: a recipe key, a file, a model folder. Nothing was spent. Exit code 2."""

    exit_code = 2


class Interrupted(Exception):
    """The work stopped with everything committed kept; the same command goes on from there. Exit code 3."""

    exit_code = 3


class Stalled(Exception):
    """The watchdog saw no commit, or no worker, for the recipe's time. Exit code 4."""

    exit_code = 4


def nearest(name: str, valid: Iterable[str]) -> str:
    """Format the closest valid name, ` (did you mean 'x'?)`, or the list of all."""
    valid = sorted(valid)
    close = difflib.get_close_matches(name, valid, n=1)
    return f" (did you mean {close[0]!r}?)" if close else f" (valid: {', '.join(valid)})"
