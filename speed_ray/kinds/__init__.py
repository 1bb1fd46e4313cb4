"""The kinds of example. A kind is one file here whose `KIND` says all about it; adding one touches nothing else."""

import importlib
import pkgutil

from speed_ray.errors import UserError
from speed_ray.kinds.kind import Kind


def kind_names() -> list[str]:
    """List every kind that has a file."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "kind")


def load_kind(name: str) -> Kind:
    """Return one kind. Raises ModuleNotFoundError for a name without a file; recipes are checked against `kind_names`.

    Raises UserError where the fields that a model writes are not those that the embedder learns from.
    """
    kind: Kind = importlib.import_module(f"{__name__}.{name}").KIND
    learned = [part for part in (kind.query, kind.positive, kind.negative) if part is not None]
    written = [field.name for field in kind.fields]
    if sorted(learned) != sorted(written):
        raise UserError(
            f"kinds/{name}.py: the fields are {', '.join(written)}, but query, positive and negative "
            f"name {', '.join(learned)}.\nName each field by exactly one of the three, and have no other."
        )
    return kind
