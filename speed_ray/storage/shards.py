"""Implement the exactly-once protocol: plan -> attempt -> commit -> publish. Nothing else writes Parquet into a run.

Promise: every planned row ends in exactly one committed shard, as accepted records or as one rejected row with its
reason, whatever is killed, whenever, also when two drivers run at once. Ray may run a shard any number of times; a
commit is created only if absent, so it counts once. An artifact is a folder:

    plan.json                                what is to be made, created only if absent
    attempts/<shard>/<attempt>-<role>.parquet  replies, records, rejects; no name is used twice
    commits/<shard>.<generation>.json        names the attempt that counts, with its digests
    commits/<shard>.<generation>.void        withdraws a commit whose files were found damaged
    _MANIFEST.json, _SUCCESS                 all commits in one immutable list; readers use only this
"""

import hashlib
import json
import re
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import pyarrow as pa

from speed_ray.errors import Interrupted, UserError
from speed_ray.records import Row
from speed_ray.storage import parquet
from speed_ray.storage.shard_plan import Plan, identity_difference
from speed_ray.storage.store import Store, read_if_exists

T = TypeVar("T")
REPLIES, RECORDS, REJECTS = "replies", "records", "rejects"
ROLES = (REPLIES, RECORDS, REJECTS)
COMMIT = re.compile(r"([0-9]{8,})\.([0-9]+)\.(json|void)")  # anything else in the folder is a stray
READERS = 32  # files that a driver reads at once: S3 takes some 30 ms for each, and a large run has a million
SWEEP_GRACE = 3600.0  # seconds after `_SUCCESS`: a driver that was forgotten may still be writing an attempt


@dataclass(frozen=True)
class File:
    """Describes one committed Parquet file."""

    path: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Counts:
    """Counts the results of one shard or many. `accepted` and `rejected` are numbers of planned rows."""

    accepted: int = 0
    rejected: int = 0
    records: int = 0
    calls: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    kinds: dict[str, int] = field(default_factory=dict)  # records by kind
    reasons: dict[str, int] = field(default_factory=dict)  # rejected rows by reason

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            accepted=self.accepted + other.accepted,
            rejected=self.rejected + other.rejected,
            records=self.records + other.records,
            calls=self.calls + other.calls,
            retries=self.retries + other.retries,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            kinds=dict(Counter(self.kinds) + Counter(other.kinds)),
            reasons=dict(Counter(self.reasons) + Counter(other.reasons)),
        )


@dataclass(frozen=True)
class Commit:
    """Records which attempt counts for a shard, with its files and counts."""

    shard: int
    generation: int
    plan: str
    attempt: str
    files: dict[str, File]
    counts: Counts
    started: float  # seconds since the epoch, of the machine that did it
    finished: float

    def to_json(self) -> bytes:
        """Serialize; the bytes are unique to the attempt, whose id they hold."""
        return json.dumps(asdict(self), sort_keys=True).encode()

    @staticmethod
    def from_json(data: bytes) -> "Commit":
        """Deserialize the output of `to_json`."""
        tree = json.loads(data)
        files = {role: File(**entry) for role, entry in tree["files"].items()}
        return Commit(**{**tree, "files": files, "counts": Counts(**tree["counts"])})


class Attempt:
    """Writes one attempt at a shard: files under unique names, then one commit for all of them."""

    def __init__(self, artifact: "Artifact", plan: Plan, shard: int, generation: int) -> None:
        self.artifact = artifact
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
        )
        return self.artifact.create(f"commits/{self.shard:08d}.{self.generation}.json", commit.to_json())


class Artifact:
    """Reads and writes one named artifact of a run, such as `tasks` or `examples`."""

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.name = name
        self.where = f"{store.uri}/{name}"

    def ensure_plan(self, plan: Plan) -> None:
        """Write the plan unless an equal one exists. Raises UserError with the difference to another one."""
        if self.create("plan.json", plan.to_json()):
            return
        existing = self.plan()
        assert existing is not None
        if existing.digest != plan.digest:
            raise UserError(
                f"{self.where} was planned differently; its rows cannot be mixed with what is asked for now:\n"
                + identity_difference(asdict(existing), asdict(plan))
                + "\nUse another --run folder, or go back to the recipe, the inputs and the version of speed_ray "
                "that this one was begun with."
            )

    def plan(self) -> Plan | None:
        """Return the plan, or None before there is one."""
        data = self._find("plan.json")
        return None if data is None else self._understood("plan.json", data, Plan.from_json)

    def has_commits(self) -> bool:
        """Tell if any shard has a commit, withdrawn ones included."""
        done, _ = self._commit_names()
        return bool(done)

    def pending(self, plan: Plan) -> list[tuple[int, int]]:
        """List the shards without a commit, each with the generation of its next commit."""
        done, void = self._commit_names()
        generations = {shard: max(of) + 1 for shard, of in void.items()}
        wanted = ((shard, generations.get(shard, 0)) for shard in range(plan.shards))
        return [pair for pair in wanted if pair[1] not in done.get(pair[0], ())]

    def commits(self) -> Iterator[Commit]:
        """Yield the valid commits in shard order, a few at a time in memory."""
        done, void = self._commit_names()
        names = [
            f"commits/{shard:08d}.{max(of)}.json"
            for shard, of in sorted(done.items())
            if max(of) not in void.get(shard, ())
        ]
        with ThreadPoolExecutor(READERS) as readers:
            for start in range(0, len(names), 256):
                yield from readers.map(self._commit, names[start : start + 256])

    def commit_of(self, shard: int) -> Commit | None:
        """Return a shard's valid commit or None, in one or two look-ups however many shards there are."""
        generation = 0
        while self._find(f"commits/{shard:08d}.{generation}.void") is not None:
            generation += 1
        path = f"commits/{shard:08d}.{generation}.json"
        return self._commit(path) if self._find(path) is not None else None

    def is_committed(self, shard: int, generation: int) -> bool:
        """Tell if a shard is committed already, which spares the work when Ray hands it out twice."""
        return self._find(f"commits/{shard:08d}.{generation}.json") is not None

    def publish(self, plan: Plan) -> bool:
        """Check every committed file, then write `_MANIFEST.json` and `_SUCCESS`.

        Returns False when that is not to be yet: a damaged file's commit was withdrawn, by this driver or another,
        and its shard is pending again; or what is published names a commit that was withdrawn since.
        """
        commits = [commit for commit in self.commits() if commit.shard < plan.shards]
        if len(commits) < plan.shards:
            return False
        with ThreadPoolExecutor(READERS) as readers:
            damaged = [
                commit
                for commit, whole in zip(commits, readers.map(self._is_whole, commits), strict=True)
                if not whole
            ]
        for commit in damaged:
            self.withdraw(commit)
        if damaged:
            return False
        if not self.create("_MANIFEST.json", manifest_of(plan, commits)):
            self.unpublish()
            return False
        self.create("_SUCCESS", json.dumps({"published": time.time()}).encode())
        return True

    def manifest(self) -> dict[str, Any] | None:
        """Return the published list of shards, or None unless both `_MANIFEST.json` and `_SUCCESS` exist."""
        data = self._find("_MANIFEST.json") if self._find("_SUCCESS") else None
        return None if data is None else self._understood("_MANIFEST.json", data, json.loads)

    def withdraw(self, commit: Commit) -> None:
        """Void a commit whose files are damaged; its shard is made again in the next generation."""
        self.unpublish()
        self.create(f"commits/{commit.shard:08d}.{commit.generation}.void", uuid.uuid4().bytes)

    def unpublish(self) -> None:
        """Delete a manifest that names damaged files.

        `_MANIFEST.json` goes first: should the driver die in between, what stays is no publication, and the next
        driver finds no manifest in the place of its own.
        """
        for name in ("_MANIFEST.json", "_SUCCESS"):
            if self._find(name) is not None:  # most often there is none, and credentials may lack the right to delete
                self.store.delete(f"{self.name}/{name}")

    def damage(self, entry: File) -> str | None:
        """Describe the damage of a stored file (missing, truncated, wrong hash or content), or return None."""
        data = self._find(entry.path)
        if data is None:
            return "the file is missing"
        if len(data) != entry.bytes:
            return f"it has {len(data)} bytes instead of {entry.bytes}"
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            return "its content has changed (sha256 differs)"
        rows = parquet.count_rows(data)
        return None if rows == entry.rows else f"it has {rows} rows instead of {entry.rows}"

    def _is_whole(self, commit: Commit) -> bool:
        return not any(self.damage(entry) for entry in commit.files.values())

    def read(self, path: str) -> pa.Table:
        """Read one committed file. Raises Interrupted where it is damaged."""
        try:
            return parquet.read_table(self.get(path))
        except (OSError, pa.ArrowException) as error:
            raise Interrupted(
                f"{self.where}/{path} cannot be read: {error}\n"
                "See what else is damaged, and have it made anew, with: speed-ray verify <run> --repair"
            ) from error

    def records(self) -> Iterator[Any]:
        """Yield the published records in the order of their plan, a shard at a time in memory."""
        for file in self.record_files().values():
            yield from self.read(file.path).to_pylist()

    def record_files(self) -> dict[int, File]:
        """Return the published record files by shard; a shard whose rows were all rejected has none."""
        manifest = self.manifest()
        assert manifest is not None, f"{self.where} is read before it is published"
        files = ((shard["shard"], shard["files"].get(RECORDS)) for shard in manifest["shards"])
        return {shard: File(**entry) for shard, entry in files if entry}

    def sweep(self, grace: float = SWEEP_GRACE) -> int:
        """Delete orphaned attempts once `_SUCCESS` is older than `grace` seconds; return how many files."""
        success, manifest = self._find("_SUCCESS"), self.manifest()
        if success is None or manifest is None:
            return 0
        published = self._understood("_SUCCESS", success, lambda data: float(json.loads(data)["published"]))
        if time.time() - published < grace:
            return 0
        kept = {entry["path"] for shard in manifest["shards"] for entry in shard["files"].values()}
        orphans = [f"attempts/{name}" for name in self.names("attempts")]
        orphans = [path for path in orphans if path not in kept]
        for path in orphans:
            self.store.delete(f"{self.name}/{path}")
        return len(orphans)

    def put(self, path: str, data: bytes) -> None:
        """Write a file of an attempt."""
        self.store.put(f"{self.name}/{path}", data)

    def create(self, path: str, data: bytes) -> bool:
        """Write a file of the protocol unless it exists; return if it was written."""
        return self.store.create(f"{self.name}/{path}", data)

    def get(self, path: str) -> bytes:
        """Read one file. Raises FileNotFoundError."""
        return self.store.get(f"{self.name}/{path}")

    def names(self, folder: str) -> list[str]:
        """List a folder's files. Only for what no manifest names yet: commits, journals, orphans."""
        return self.store.names(f"{self.name}/{folder}")

    def _find(self, path: str) -> bytes | None:
        return read_if_exists(self.store, f"{self.name}/{path}")

    def _commit(self, path: str) -> Commit:
        return self._understood(path, self.get(path), Commit.from_json)

    def _understood(self, path: str, data: bytes, read: Callable[[bytes], T]) -> T:
        try:
            return read(data)
        except (ValueError, KeyError, TypeError) as error:
            raise Interrupted(
                f"{self.where}/{path} is damaged ({error}).\n"
                "Delete that one file and run the same job again: it makes anew what the file stood for."
            ) from None

    def _commit_names(self) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
        done: dict[int, list[int]] = {}
        void: dict[int, list[int]] = {}
        for shard, generation, suffix in (m.groups() for m in map(COMMIT.fullmatch, self.names("commits")) if m):
            (done if suffix == "json" else void).setdefault(int(shard), []).append(int(generation))
        return done, void


def manifest_of(plan: Plan, commits: list[Commit]) -> bytes:
    """Serialize `_MANIFEST.json` without a time or a host, so that equal commits give equal bytes."""
    shards = [
        {
            "shard": commit.shard,
            "attempt": commit.attempt,
            "files": {role: asdict(entry) for role, entry in commit.files.items()},
            "counts": asdict(commit.counts),
        }
        for commit in commits
    ]
    total = asdict(sum((commit.counts for commit in commits), Counts()))
    tree = {"stage": plan.stage, "plan": plan.digest, "planned": plan.rows, "counts": total, "shards": shards}
    return json.dumps(tree, sort_keys=True).encode()
