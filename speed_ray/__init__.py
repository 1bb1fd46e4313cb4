"""speed_ray: from a list of topics to a trained embedding model, on a laptop or a Ray cluster.

>>> import speed_ray
>>> recipe = speed_ray.load_recipe("miniature", ["synthesize.examples=100"])
>>> recipe.synthesize.examples
100
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_JOBS = (
    *("read_documents", "brainstorm", "align_junior", "align_senior", "align_revisor"),
    *("synthesize", "curate", "score", "train_embedder", "evaluate"),
)
_MODULES = {  # of public names, each imported when it is first asked for: Ray and Arrow take a second
    "Recipe": "speed_ray.recipes.schema",
    "load_recipe": "speed_ray.recipes",
    "Run": "speed_ray.notebook.opened_run",
    **dict.fromkeys(("plan", "run"), "speed_ray.notebook.jobs"),
    **dict.fromkeys(("UserError", "Interrupted", "Stalled"), "speed_ray.errors"),
    **dict.fromkeys(_JOBS, "speed_ray.pipeline"),
}
__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'speed_ray' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
