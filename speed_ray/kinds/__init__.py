"""The kinds of example. A kind is one file here whose `KIND` says all about it; adding one touches nothing else."""

import functools
import importlib
import pkgutil

from speed_ray.errors import UserError
from speed_ray.kinds.kind import Kind


def kind_names() -> list[str]:
    """List every kind that has a file."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "kind")


@functools.cache  # asked for each row of a curation
def load_kind(name: str) -> Kind:
    """Return one kind. Raises ModuleNotFoundError for a name without a file; recipes are checked against `kind_names`.

    Raises UserError where the fields that a model writes are not those that the embedder learns from.
    """
    kind: Kind = importlib.import_module(f"{__name__}.{name}").KIND
    for side in (kind, kind.grounded):
        if side is not None:
            _refuse_other_fields(side, name)
    return kind


def load_grounded(name: str) -> Kind:
    """Return how a kind is written about a passage; the recipe's check has refused those that are not."""
    grounded = load_kind(name).grounded
    assert grounded is not None, name
    return grounded


def grounded_names() -> list[str]:
    """List the kinds that can be written about a passage."""
    return [name for name in kind_names() if load_kind(name).grounded]


def _refuse_other_fields(kind: Kind, name: str) -> None:
    learned = [part for part in (kind.query, kind.positive, kind.negative) if part is not None]
    written = [*(field.name for field in kind.fields), *([kind.passage] if kind.passage else [])]
    if sorted(learned) != sorted(written):
        raise UserError(
            f"kinds/{name}.py: the fields are {', '.join(written)}, but query, positive and negative "
            f"name {', '.join(learned)}.\nName each field by exactly one of the three, and have no other."
        )
