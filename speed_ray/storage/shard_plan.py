"""Define the plan of an artifact: its rows, and the identity of all that decides them."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from speed_ray.errors import UserError


@dataclass(frozen=True)
class Plan:
    """Describes the rows that an artifact will hold. Shard k is rows [k * shard_rows, (k + 1) * shard_rows).

    `identity` holds the digests of all that decides a row: input, model, prompts, sampling, schemas, seed, code.
    `variants` or `mix` say which input row, in which variant, planned row i is (see storage/planned_rows.py).
    """

    stage: str
    rows: int
    shard_rows: int
    input: str | None = None
    variants: tuple[str, ...] = ()
    mix: dict[str, int] = field(default_factory=dict)
    identity: dict[str, Any] = field(default_factory=dict)

    @property
    def shards(self) -> int:
        """Return the number of shards."""
        return -(-self.rows // self.shard_rows)

    def rows_of(self, shard: int) -> range:
        """Return the indices of one shard's planned rows."""
        return range(shard * self.shard_rows, min((shard + 1) * self.shard_rows, self.rows))

    @property
    def key(self) -> str:
        """Return the column of a record that holds its planned row's id; `id` where rows are filtered, not made."""
        return "row_id" if self.variants or self.mix else "id"

    @cached_property
    def digest(self) -> str:
        """Return the hash of the whole plan."""
        return hashlib.sha256(self.to_json()).hexdigest()

    def to_json(self) -> bytes:
        """Serialize canonically: equal plans give equal bytes."""
        return json.dumps(asdict(self), sort_keys=True, indent=1, ensure_ascii=False).encode()

    @staticmethod
    def from_json(data: bytes) -> "Plan":
        """Deserialize the output of `to_json`."""
        tree = json.loads(data)
        if not all(isinstance(tree[name], int) for name in ("rows", "shard_rows")):
            raise TypeError("rows and shard_rows are no numbers")
        return Plan(**{**tree, "variants": tuple(tree["variants"])})


def without_inputs(tree: Any) -> Any:
    """Leave out of a plan, read from JSON, what a repair may change: rows of inputs, and weights trained on such."""
    if not isinstance(tree, dict):
        return tree
    if "artifact" in tree:
        return tree["artifact"]
    changing = ("rows", "digest", "weights", "adapter_weights")
    return {key: without_inputs(below) for key, below in tree.items() if key not in changing}


def identity_difference(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> str:
    """List the differences of two identities, one line a key: `  key: was X, now Y`."""
    lines = []
    for key in sorted(set(old) | set(new)):
        was, now = old.get(key), new.get(key)
        if isinstance(was, dict) and isinstance(now, dict):
            lines.append(identity_difference(was, now, f"{prefix}{key}."))
        elif was != now:
            lines.append(f"  {prefix}{key}: was {was!r}, now {now!r}")
    return "\n".join(line for line in lines if line)


def other_plan_error(what: str, old: dict[str, Any], new: dict[str, Any]) -> UserError:
    """Return the refusal of a plan where another one is held to."""
    return UserError(
        f"{what}:\n{identity_difference(old, new)}\n"
        "Use another --run folder, or go back to the recipe, the inputs and the version of speed_ray that this one "
        "was begun with."
    )
