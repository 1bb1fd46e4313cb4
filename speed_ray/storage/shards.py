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
import logging
import re
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

import pyarrow as pa

from speed_ray.errors import Interrupted, UserError
from speed_ray.storage import parquet
from speed_ray.storage.shard_plan import Plan, other_plan_error, without_inputs
from speed_ray.storage.store import Store, read_if_exists

log = logging.getLogger(__name__)

T = TypeVar("T")
REPAIRED = "_REPAIRED"  # at the run's root: something was withdrawn, so that rows may come out differently
REPLIES, RECORDS, REJECTS = "replies", "records", "rejects"
ROLES = (REPLIES, RECORDS, REJECTS)
COMMIT = re.compile(r"([0-9]{8,})\.([0-9]+)\.(json|void)")  # anything else in the folder is a stray
READERS = 32  # files that a driver reads at once: S3 takes some 30 ms for each, and a large run has a million


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
    cached_tokens: int = 0  # of the prompt's, found in the engine's prefix cache
    reasoning_tokens: int = 0  # of the output's: thoughts, as far as an endpoint tells
    kinds: dict[str, int] = field(default_factory=dict)  # records by kind
    reasons: dict[str, int] = field(default_factory=dict)  # rejected rows by reason
    mined: dict[str, int] = field(default_factory=dict)  # "reference: filled", and what each rule refused
    judged: dict[str, int] = field(default_factory=dict)  # "first/A", "order/A/B": what judges said, alike or not

    @property
    def prefix_hits(self) -> float:
        """Return the share of the prompts' tokens that the engine had from prompts with the same beginning."""
        return self.cached_tokens / self.prompt_tokens if self.prompt_tokens else 0.0

    def __add__(self, other: "Counts") -> "Counts":
        total: dict[str, Any] = {}
        for name in (each.name for each in fields(self)):
            ours, theirs = getattr(self, name), getattr(other, name)
            total[name] = dict(Counter(ours) + Counter(theirs)) if isinstance(ours, dict) else ours + theirs
        return Counts(**total)


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
    source: str | None = None  # the attempt at the same shard of the input, where that may be made anew on its own

    def to_json(self) -> bytes:
        """Serialize; the bytes are unique to the attempt, whose id they hold."""
        return json.dumps(asdict(self), sort_keys=True).encode()

    @staticmethod
    def from_json(data: bytes) -> "Commit":
        """Deserialize the output of `to_json`."""
        tree = json.loads(data)
        files = {role: File(**entry) for role, entry in tree["files"].items()}
        return Commit(**{**tree, "files": files, "counts": Counts(**tree["counts"])})


class Artifact:
    """Reads and writes one named artifact of a run, such as `tasks` or `examples`."""

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.name = name
        self.where = f"{store.uri}/{name}"

    def ensure_plan(self, plan: Plan) -> None:
        """Write the plan unless an equal one exists. Raises UserError with the difference to another one.

        A plan takes the place of one of which no row is accepted, and of one from which it differs in nothing but
        what a repair made anew. Its commits are withdrawn.
        """
        existing = self._first_plan(plan)
        if existing.digest == plan.digest:
            return
        if self.accepted_at_least() and not is_made_anew(self.store, *map(_json, (existing, plan))):
            raise self._planned_differently(existing, plan)
        self.replace_plan(plan, "was made of rows that are others now, or none of its rows was accepted")

    def _first_plan(self, plan: Plan) -> Plan:
        """Return the plan that is there; where there is none, write this one and return it."""
        existing = self.plan()
        if existing is None:
            self._refuse_other_commits(plan)
            existing = plan if self.create("plan.json", plan.to_json()) else self.plan()
        assert existing is not None
        return existing

    def _planned_differently(self, existing: Plan, plan: Plan) -> UserError:
        what = f"{self.where} was planned differently; its rows cannot be mixed with what is asked for now"
        return other_plan_error(what, _json(existing), _json(plan))

    def _refuse_other_commits(self, plan: Plan) -> None:
        """Raise UserError where a plan.json is missing and was not this plan's."""
        others = sum(commit.plan != plan.digest for commit in self.commits())
        if others:
            raise UserError(
                f"{self.where}/plan.json is missing, and {others:,} shards there were made by another plan than the "
                "one that is asked for now.\nGo back to the recipe, the inputs and the version of speed_ray that they "
                f"were made with, or use another --run folder. To make them anew, delete {self.where}."
            )

    def replace_plan(self, plan: Plan, why: str) -> None:
        """Withdraw the commits of all other plans, then write this one; drivers at once come to the same."""
        published = self._find("_MANIFEST.json")
        if published is not None and self._understood("_MANIFEST.json", published, json.loads)["plan"] != plan.digest:
            self.unpublish()
        others = [commit for commit in self.commits() if commit.plan != plan.digest]
        for commit in others:
            self._void(commit)
        if others:
            log.warning("%s %s: %d shards are made anew", self.where, why, len(others))
        self.put("plan.json", plan.to_json())

    def plan(self) -> Plan | None:
        """Return the plan, or None before there is one."""
        data = self._find("plan.json")
        return None if data is None else self._understood("plan.json", data, Plan.from_json)

    def has_commits(self) -> bool:
        """Tell if any shard has a commit, withdrawn ones included."""
        return bool(self._commit_names()[0])

    def accepted_at_least(self) -> int:
        """Count the accepted rows of the first shard that has any; 0 where nothing would be lost with the plan."""
        return next((commit.counts.accepted for commit in self.commits() if commit.counts.accepted), 0)

    def withdrawals(self) -> dict[str, int]:
        """Count how often the commits of each shard were withdrawn; nothing of shards that never were."""
        return {str(shard): len(of) for shard, of in sorted(self._commit_names()[1].items())}

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
        """Return a shard's valid commit by the plan or None, in three look-ups however many shards there are."""
        generation = 0
        while self._find(f"commits/{shard:08d}.{generation}.void") is not None:
            generation += 1
        path = f"commits/{shard:08d}.{generation}.json"
        data, plan = self._find(path), self.plan()
        commit = None if data is None else self._understood(path, data, Commit.from_json)
        return commit if commit and plan and commit.plan == plan.digest else None

    def is_committed(self, shard: int, generation: int) -> bool:
        """Tell if a shard is committed already, which spares the work when Ray hands it out twice."""
        return self.has(f"commits/{shard:08d}.{generation}.json")

    def publish(self, plan: Plan) -> bool:
        """Check every commit and its files, then write `_MANIFEST.json` and `_SUCCESS`.

        Returns False when that is not to be yet: a commit was withdrawn, by this driver or another, because a file of
        it is damaged or it was made by another plan or of rows that are no more, and its shard is pending again; or
        what is published names a commit that was withdrawn since. Raises UserError where another plan is there.
        """
        # A driver that slept while its plan was replaced must not put it back.
        if (existing := self._first_plan(plan)).digest != plan.digest:
            raise self._planned_differently(existing, plan)
        commits = [commit for commit in self.commits() if commit.shard < plan.shards]
        if len(commits) < plan.shards:
            return False
        with ThreadPoolExecutor(READERS) as readers:
            fit = readers.map(lambda commit: self._is_of(plan, commit) and self._is_whole(commit), commits)
            damaged = [commit for commit, counts in zip(commits, fit, strict=True) if not counts]
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
        mark_repaired(self.store)
        self.unpublish()
        self._void(commit)

    def _void(self, commit: Commit) -> None:
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

    def is_outdated(self, plan: Plan, commit: Commit) -> bool:
        """Tell if the shard of the input that a commit was made of was made anew since."""
        if commit.source is None or plan.input is None:
            return False
        read = Artifact(self.store, plan.input).commit_of(commit.shard)
        return read is None or read.attempt != commit.source

    def _is_of(self, plan: Plan, commit: Commit) -> bool:
        return commit.plan == plan.digest and not self.is_outdated(plan, commit)

    def _is_whole(self, commit: Commit) -> bool:
        return not any(self.damage(entry) for entry in commit.files.values())

    def read(self, path: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Read one committed file, or some of its columns. Raises Interrupted where it is damaged."""
        try:
            return parquet.read_table(self.get(path), columns)
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

    def records_digest(self) -> str:
        """Hash the published records: all that the next stage reads. Replies hold seconds, never the same twice."""
        return hashlib.sha256("".join(file.sha256 for file in self.record_files().values()).encode()).hexdigest()

    def published_at(self) -> float | None:
        """Return when it was published, in seconds since the epoch, or None."""
        data = self._find("_SUCCESS")
        return (
            None if data is None else self._understood("_SUCCESS", data, lambda d: float(json.loads(d)["published"]))
        )

    def put(self, path: str, data: bytes) -> None:
        """Write a file of an attempt."""
        self.store.put(f"{self.name}/{path}", data)

    def create(self, path: str, data: bytes) -> bool:
        """Write a file of the protocol unless it exists; return if it was written."""
        return self.store.create(f"{self.name}/{path}", data)

    def get(self, path: str) -> bytes:
        """Read one file. Raises FileNotFoundError."""
        return self.store.get(f"{self.name}/{path}")

    def has(self, path: str) -> bool:
        """Tell whether a file is there."""
        return self._find(path) is not None

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
        except (ValueError, KeyError, TypeError, AttributeError) as error:
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


def mark_repaired(store: Store) -> None:
    """Note in a run that something of it was withdrawn."""
    store.create(REPAIRED, uuid.uuid4().bytes)


def is_made_anew(store: Store, old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Tell if two plans, as JSON has them, differ in nothing but what was made anew in a run that was repaired."""
    return without_inputs(old) == without_inputs(new) and read_if_exists(store, REPAIRED) is not None


def _json(plan: Plan) -> Any:
    return json.loads(plan.to_json())


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
