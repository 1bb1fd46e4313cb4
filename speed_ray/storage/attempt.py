"""Write one attempt at a shard: its files under names that nobody else uses, then one commit for all of them."""

import hashlib
import time
import uuid
from collections.abc import Iterable, Sequence

import pyarrow as pa

from speed_ray.errors import Interrupted
from speed_ray.records import Row
from speed_ray.storage import parquet
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import RECORDS, REJECTS, ROLES, Artifact, Commit, Counts, File


class Attempt:
    """Writes one attempt at a shard: files under unique names, then one commit for all of them."""

    def __init__(self, artifact: Artifact, plan: Plan, shard: int, generation: int, source: str | None = None) -> None:
        self.artifact = artifact
        self.source = source
        self.plan = plan
        self.shard = shard
        self.generation = generation
        self.id = uuid.uuid4().hex
        self.started = time.time()
        self.files: dict[str, File] = {}
        self.row_ids: dict[str, set[str]] = {role: set() for role in ROLES}

    def write(self, role: str, rows: Sequence[Row], schema: pa.Schema) -> None:
        """Write one role's rows as Parquet, read them back and compare. An empty role has no file."""
        if not rows:
            return
        data = parquet.write_table(rows, schema)
        path = f"attempts/{self.shard:08d}/{self.id}-{role}.parquet"
        entry = File(path=path, rows=len(rows), bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        self.artifact.put(path, data)
        if damage := self.artifact.damage(entry):
            raise Interrupted(
                f"{self.artifact.where}/{path} was not stored as written: {damage}. Run the command again."
            )
        self.files[role] = entry
        key = self.plan.key if role == RECORDS else "row_id"
        self.row_ids[role].update([row[key] for row in rows])

    def commit(self, planned: Iterable[str], counts: Counts) -> bool:
        """Commit this attempt. Return False if another attempt committed first; this one's files are then orphans."""
        accepted, rejected = self.row_ids[RECORDS], self.row_ids[REJECTS]
        # An assertion, not an error: if this fails the executor is wrong, and no user can put it right.
        assert accepted | rejected == set(planned) and not accepted & rejected, (
            f"shard {self.shard} lost or doubled rows"
        )
        commit = Commit(
            shard=self.shard,
            generation=self.generation,
            plan=self.plan.digest,
            attempt=self.id,
            files=self.files,
            counts=counts,
            started=self.started,
            finished=time.time(),
            source=self.source,
        )
        return self.artifact.create(f"commits/{self.shard:08d}.{self.generation}.json", commit.to_json())
