"""What share of a model's raw replies has the form that was asked for: one JSON object with its kind's fields.

Whether they say what they should is another matter: checks and languages are left out here, and only first trials
count. Where an engine held its replies to a schema, the share says nothing about the model.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from speed_ray import kinds
from speed_ray.prompts.parse import unchecked_fields
from speed_ray.records import Rejected
from speed_ray.storage.run import CANDIDATES, DRAFTS, EXAMPLES, OWN_REVISIONS, REVISED_EXAMPLES
from speed_ray.storage.shards import RECORDS, REJECTS, REPLIES, Artifact, Commit

OF_EXAMPLES = (DRAFTS, CANDIDATES, OWN_REVISIONS, EXAMPLES, REVISED_EXAMPLES)  # whose replies are examples of a kind
LOOKED_AT = 2_000  # replies, from the first shards on: they give the share to about a percent


@dataclass(frozen=True)
class Parsed:
    """How many of one model's raw replies were looked at, and how many of these have the form."""

    model: str
    looked_at: int
    parsed: int
    held_to_schema: bool


def measure_parse_rate(artifact: Artifact) -> list[Parsed]:
    """Read the first `LOOKED_AT` raw replies of an artifact's committed shards again, by model."""
    plan = artifact.plan()
    held = plan is not None and bool(plan.identity.get("engine", {}).get("structured"))
    looked_at: Counter[str] = Counter()
    fit: Counter[str] = Counter()
    for commit in artifact.commits():
        for model, reads in _replies(artifact, commit):
            looked_at[model] += 1
            fit[model] += reads
        if looked_at.total() >= LOOKED_AT:
            break
    return [Parsed(model, count, fit[model], held) for model, count in looked_at.items()]


def _replies(artifact: Artifact, commit: Commit) -> Iterator[tuple[str, bool]]:
    if REPLIES not in commit.files:
        return
    kind_of: dict[str, str] = {}
    for role in (RECORDS, REJECTS):
        if role in commit.files:
            table = artifact.read(commit.files[role].path)
            kind_of.update(zip(table["row_id"].to_pylist(), table["kind"].to_pylist(), strict=True))
    columns = artifact.read(commit.files[REPLIES].path).select(["row_id", "trial", "text", "model", "adapter"])
    for reply in columns.to_pylist():
        if reply["trial"] == 0:
            model = " + ".join(name for name in (reply["model"], reply["adapter"]) if name)
            yield model, _has_form(reply["text"], kind_of[reply["row_id"]])


def _has_form(text: str, kind: str) -> bool:
    try:
        unchecked_fields(text, kinds.load_kind(kind))
    except Rejected:
        return False
    return True
