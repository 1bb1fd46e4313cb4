"""The kinds of example. A kind is one file here whose `KIND` says everything about it; adding one touches nothing else."""

import importlib
import pkgutil

from speed_ray.kinds.kind import Kind


def names() -> list[str]:
    """List every kind that has a file."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "kind")


def load(name: str) -> Kind:
    """Return one kind. Raises KeyError for a name without a file."""
    if name not in names():
        raise KeyError(f"there is no kind {name!r}: kinds are {', '.join(names())}")
    kind: Kind = importlib.import_module(f"{__name__}.{name}").KIND
    return kind
