"""Measure the parse rate: the share of a model's raw replies that are one JSON object with the fields of their kind,
or a line where one was to be continued.

Whether the fields say what they should is another matter: checks and languages are left out here, and only first
trials count. Where an engine held its replies to a schema, the rate says nothing about the model.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from speed_ray import kinds
from speed_ray.kinds.kind import Kind
from speed_ray.prompts.parse import unchecked_fields
from speed_ray.records import Rejected
from speed_ray.storage.run import ASKED_ABOUT, CANDIDATES, DRAFTS, EXAMPLES, OWN_REVISIONS, REVISED_EXAMPLES
from speed_ray.storage.shards import RECORDS, REJECTS, REPLIES, Artifact, Commit

WITH_EXAMPLES = (DRAFTS, CANDIDATES, OWN_REVISIONS, EXAMPLES, REVISED_EXAMPLES)  # whose replies are examples of a kind
MAX_REPLIES = 2_000  # from the first shards on: they give the rate to about a percent


@dataclass(frozen=True)
class ParseRate:
    """Count how many of one model's replies were read, and how many of them parsed."""

    model: str
    replies: int
    parsed: int
    held_to_schema: bool


def measure_parse_rate(artifact: Artifact) -> list[ParseRate]:
    """Parse the first `MAX_REPLIES` raw replies of an artifact's committed shards again, and count them by model."""
    plan = artifact.plan()
    engine = plan.identity.get("engine", {}) if plan is not None else {}
    one_line = bool(engine.get("completion"))
    # The second is the key's previous name.
    held = bool(engine.get("structured_outputs", engine.get("structured"))) and not one_line
    load_kind = kinds.load_grounded if plan is not None and plan.input in ASKED_ABOUT else kinds.load_kind
    replies: Counter[str] = Counter()
    parsed: Counter[str] = Counter()
    for commit in artifact.commits():
        for model, text, kind in _replies(artifact, commit):
            replies[model] += 1
            parsed[model] += _parses(text, load_kind(kind), one_line)
        if replies.total() >= MAX_REPLIES:
            break
    return [ParseRate(model, count, parsed[model], held) for model, count in replies.items()]


def _replies(artifact: Artifact, commit: Commit) -> Iterator[tuple[str, str, str]]:
    """Yield the model, the text and the kind of each first reply."""
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
            yield model, reply["text"], kind_of[reply["row_id"]]


def _parses(text: str, kind: Kind, one_line: bool) -> bool:
    try:
        unchecked_fields(text, kind, one_line)
    except Rejected:
        return False
    return True
