"""Define the plan of an artifact: its rows, and the identity of all that decides them."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any


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


def differs_by_repair(old: Plan, new: Plan) -> bool:
    """Tell if two plans differ in nothing but the rows of their inputs, or the weights that were trained on such.

    A damaged shard that a model or an endpoint makes anew has other rows, and all that was made of it follows.
    """
    return _without_inputs(asdict(old)) == _without_inputs(asdict(new))


def _without_inputs(tree: dict[str, Any]) -> dict[str, Any]:
    identity = {key: _without_digests(value) for key, value in tree["identity"].items()}
    stored: dict[str, Any] = json.loads(json.dumps({**tree, "rows": None, "identity": identity}))
    return stored


def _without_digests(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "artifact" in value:
        return value["artifact"]
    return {key: below for key, below in value.items() if key not in ("weights", "adapter_weights")}


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
