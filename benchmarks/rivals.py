"""Find the rivals that `make rivals` installs apart from this project's packages, whose versions they would change."""

import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path

FOLDER = Path(__file__).parents[1] / ".rivals"


def are_installed(*packages: str) -> bool:
    """Return whether each package is in that folder or in this environment."""
    return all(PathFinder.find_spec(package, [str(FOLDER), *sys.path]) for package in packages)


def environment() -> dict[str, str]:
    """Return the environment variables of a process that imports rivals: their folder comes first."""
    paths = [str(FOLDER), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
