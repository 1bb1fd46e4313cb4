"""Keep in a run what was foretold of it last, for `status` and `report`, which load no stage."""

import json
from typing import Any

from speed_ray.storage.run import Run
from speed_ray.storage.store import read_if_exists

PLANNED = "planned.json"  # in a run's folder
NEEDED = {"stage", "role", "calls", "prompt_tokens", "output_tokens", "dollars"}  # of each stage


def keep_plan(run: Run, plan: dict[str, Any]) -> None:
    """Store a plan, as JSON has it, in the place of an earlier one."""
    run.store.put(PLANNED, json.dumps(plan).encode())


def kept_plan(run: Run) -> dict[str, Any] | None:
    """Read the run's plan as JSON has it, None where there is none that can be read."""
    try:
        tree: dict[str, Any] | None = json.loads(read_if_exists(run.store, PLANNED) or b"null")
        is_whole = tree is None or all(stage.keys() >= NEEDED for stage in tree["stages"])
        return tree if is_whole else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
