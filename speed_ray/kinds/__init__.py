"""The kinds of example. A kind is one file here whose `KIND` says all about it; adding one touches nothing else."""

import hashlib
import importlib
import inspect
import pkgutil

from speed_ray.kinds.kind import Kind


def names() -> list[str]:
    """List every kind that has a file."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "kind")


def load(name: str) -> Kind:
    """Return one kind. Raises ModuleNotFoundError for a name without a file; recipes are checked against `names`."""
    kind: Kind = importlib.import_module(f"{__name__}.{name}").KIND
    return kind


def digest(name: str) -> str:
    """Hash a kind's file: slots, schema, guidelines and checks all decide its rows."""
    source = inspect.getsource(importlib.import_module(f"{__name__}.{name}"))
    return hashlib.sha256(source.encode()).hexdigest()
