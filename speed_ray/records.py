"""The rows that flow through a run, their Arrow schemas, and where their ids and seeds come from.

Every row names its parent, so an example walks back to its task and its topic. Ids are content hashes: the same
recipe gives the same ids on any cluster. Schemas are explicit because an inferred one turns a shard of empty lists
into `list<null>`, which then cannot be read beside its neighbours.
"""

import hashlib
from typing import Any

import pyarrow as pa

Row = dict[str, Any]

_STRINGS = pa.list_(pa.field("element", pa.string(), nullable=False))

TOPIC = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("topic", pa.string(), nullable=False),  # the path, at most four parts (SPEED, appendix D.1)
        pa.field("source", pa.string(), nullable=False),  # the line as the user wrote it
    ]
)

TASK = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("row_id", pa.string(), nullable=False),  # the planned prompt that this record answers
        pa.field("parent_id", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("topic", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
    ]
)

EXAMPLE = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("parent_id", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("topic", pa.string(), nullable=False),
        pa.field("language", pa.string(), nullable=False),
        pa.field("instruction", pa.string(), nullable=False),  # what the embedder is told about the query
        pa.field("query", pa.string(), nullable=False),
        pa.field("positive", pa.string(), nullable=False),
        pa.field("negatives", _STRINGS, nullable=False),  # may be empty
        pa.field("model", pa.string(), nullable=False),
    ]
)

MESSAGE = pa.struct(
    [
        pa.field("role", pa.string(), nullable=False),
        pa.field("content", pa.string(), nullable=False),
    ]
)

_MESSAGES = pa.field("messages", pa.list_(pa.field("element", MESSAGE, nullable=False)), nullable=False)


def _trainable(*answers: pa.Field) -> pa.Schema:
    """Lay out a row that a generator or revisor learns from: a prompt as it will be asked, and one or more answers."""
    names = ("id", "row_id", "parent_id", "kind", "topic")
    model = pa.field("model", pa.string(), nullable=False)
    return pa.schema([*(pa.field(name, pa.string(), nullable=False) for name in names), _MESSAGES, *answers, model])


# Answers are an example's fields as JSON text, in the order of their kind: the form that a model is to learn.
SFT_EXAMPLE = _trainable(pa.field("reply", pa.string(), nullable=False))

CANDIDATES = _trainable(
    pa.field("task", pa.string(), nullable=False),
    pa.field("language", pa.string(), nullable=False),
    pa.field("candidates", _STRINGS, nullable=False),  # different from each other, each past its kind's checks
)

PREFERENCE_PAIR = _trainable(
    pa.field("chosen", pa.string(), nullable=False),
    pa.field("rejected", pa.string(), nullable=False),
)

VERDICT = _trainable(
    *(PREFERENCE_PAIR.field(name) for name in ("chosen", "rejected")),
    pa.field("order", pa.list_(pa.field("element", pa.int32(), nullable=False)), nullable=False),  # as they were shown
    pa.field("best", pa.int32(), nullable=False),  # place as shown, from 1
    pa.field("worst", pa.int32(), nullable=False),
    pa.field("reason", pa.string(), nullable=False),
)

REVISION = _trainable(
    pa.field("example", pa.string(), nullable=False),  # what was criticised
    pa.field("reply", pa.string(), nullable=False),  # the teacher's revision of it
    pa.field("relevance", pa.string(), nullable=False),
    pa.field("completeness", pa.string(), nullable=False),
    pa.field("accuracy", pa.string(), nullable=False),
)

REVISED = pa.schema(
    [
        *EXAMPLE,
        pa.field("revised", pa.bool_(), nullable=False),  # False: the example as it was
        pa.field("kept_because", pa.string(), nullable=False),  # why the revision was not taken, "" where it was
    ]
)

CURATED = pa.schema([*EXAMPLE, pa.field("split", pa.string(), nullable=False)])  # "train" or "held_out", by task

REPLY = pa.schema(
    [
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("trial", pa.int32(), nullable=False),  # 0, then one more for each malformed reply
        pa.field("sample", pa.int32(), nullable=False),  # 0 .. n-1 of one request
        _MESSAGES,
        pa.field("text", pa.string(), nullable=False),
        pa.field("finish_reason", pa.string(), nullable=False),
        pa.field("prompt_tokens", pa.int64(), nullable=False),
        pa.field("output_tokens", pa.int64(), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("adapter", pa.string()),
    ]
)

REJECT = pa.schema(
    [
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("parent_id", pa.string(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),  # one word or two, counted: "not_json", "label_in_text"
        pa.field("detail", pa.string(), nullable=False),  # a sentence for a person
        pa.field("text", pa.string(), nullable=False),  # the raw reply, "" when there was none
    ]
)


class Rejected(Exception):
    """A reply that cannot become a record. `reason` is counted in the funnel, `detail` is read by a person."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


def content_id(*parts: str) -> str:
    """Hash strings to the 32 hex digits that name a row: the same parts, the same id, anywhere."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()


def seed_of(recipe_seed: int, row_id: str, purpose: str) -> int:
    """Return the 31-bit seed of one row for one purpose ("slots", "trial 0", ...): never a global random state."""
    return int(content_id(str(recipe_seed), row_id, purpose)[:8], 16) & 0x7FFFFFFF
