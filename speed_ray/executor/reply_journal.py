"""Store the replies of a paid engine as they come, so that a crash never pays twice for a reply that arrived.

A shard's attempt is written when all its rows are answered. With an endpoint that costs money, what was answered
before a crash must not be asked again: every few replies go into a small file beside the attempt, and the next attempt
at the shard begins with what it finds there. (Seen elsewhere: ray.data.llm with checkpoints on sent 6,073 of 12,000
prompts twice after a kill at half.)
"""

import asyncio
import hashlib
import json
from collections.abc import Collection
from dataclasses import asdict
from typing import Any

import orjson

from speed_ray.engines.base import Reply, Sample
from speed_ray.storage.shards import Artifact
from speed_ray.storage.store import delete_if_allowed

EVERY = 16  # replies a file: with 64 in flight a kill repeats 64 prompts and at most this many more a shard

Answer = tuple[str, int]  # row_id, trial


class Journal:
    """Write the replies of one attempt at one shard, a few to a file.

    `plan` is the digest of the plan that decides the prompts; "" where the ids of the rows do.
    """

    def __init__(self, artifact: Artifact, shard: int, attempt: str, plan: str = "") -> None:
        self.artifact = artifact
        self.plan = plan
        self.prefix = f"attempts/{shard:08d}/{attempt}-journal"
        self.waiting: list[dict[str, Any]] = []
        self.files = 0

    async def add(self, row_id: str, trial: int, reply: Reply) -> None:
        """Add a reply; where it completes a batch, return once that is stored."""
        self.waiting.append({"plan": self.plan, "row_id": row_id, "trial": trial, "reply": reply})
        if len(self.waiting) >= EVERY:
            await self.flush()

    async def flush(self) -> None:
        """Store the replies that are not stored yet."""
        batch, self.waiting = self.waiting, []
        if batch:
            self.files += 1
            await asyncio.to_thread(self._store, f"{self.prefix}-{self.files}.jsonl", batch)

    def _store(self, path: str, batch: list[dict[str, Any]]) -> None:
        self.artifact.put(path, _journal([_line(entry) for entry in batch]))


def _line(entry: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(entry)
    except orjson.JSONEncodeError:  # half of a surrogate pair, which an endpoint may send and which was paid for
        return json.dumps(entry, default=asdict).encode()


def replay(artifact: Artifact, shard: int, plan: str | None = None) -> dict[Answer, Reply]:
    """Read every reply that earlier attempts at a shard stored, or those under a plan's digest: others answer other
    prompts. A damaged file is skipped.
    """
    found: dict[Answer, Reply] = {}
    for path in _journals(artifact, shard):
        for line in map(json.loads, _lines(artifact.get(path))):
            if plan is not None and line.get("plan") != plan:
                continue
            reply = line["reply"]
            samples = [Sample(**sample) for sample in reply["samples"]]
            thoughts = reply.get("reasoning_tokens", 0)  # absent where an earlier version stored it
            found[line["row_id"], line["trial"]] = Reply(
                samples, reply["prompt_tokens"], reply["seconds"], reasoning_tokens=thoughts
            )
    return found


def forget_replies(artifact: Artifact, shard: int, rows: Collection[str]) -> None:
    """Delete the replies to some rows that attempts at a shard stored, so that these rows are asked anew."""
    for path in _journals(artifact, shard):
        lines = _lines(artifact.get(path))
        kept = [line for line in lines if json.loads(line)["row_id"] not in rows]
        if not kept:
            delete_if_allowed(artifact.store, f"{artifact.name}/{path}")
        elif len(kept) < len(lines):
            artifact.put(path, _journal(kept))


def _journal(lines: list[bytes]) -> bytes:
    body = b"\n".join(lines)
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def _lines(journal: bytes) -> list[bytes]:
    """Return a journal's lines, none where it is damaged."""
    digest, _, body = journal.partition(b"\n")
    return body.split(b"\n") if hashlib.sha256(body).hexdigest().encode() == digest else []


def _journals(artifact: Artifact, shard: int) -> list[str]:
    folder = f"attempts/{shard:08d}"
    return [f"{folder}/{name}" for name in artifact.names(folder) if "-journal-" in name]
