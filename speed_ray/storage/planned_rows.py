"""Map planned row i to an input row and variant, as a pure function of the plan and the input's manifest.

Two orders exist. With `variants`, planned rows are input rows in manifest order times the variants; of an input with
more rows than such a plan needs, it takes some that are spread evenly. With `mix`, kinds
alternate in a fixed pattern by their weights and each kind cycles through its own input rows, a new variant each time
around. Either way a worker reads only the input files that its shard touches.

A plan with neither takes its input's rows as they are, under their own ids; then a shard needs only the same shard of
the input, and can be worked on while the rest of that is still being written.
"""

import bisect
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any, Generic, TypeVar

from speed_ray.errors import Interrupted, UserError
from speed_ray.records import Row, content_id
from speed_ray.storage.run import PRODUCED_BY
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import RECORDS, REJECTS, Artifact, Commit

UPSTREAM_REJECTED = "not_written"  # the variant of a row that has no record, because the stage before rejected it


Parent = TypeVar("Parent", bound=Row)


@dataclass(frozen=True)
class PlannedRow(Generic[Parent]):
    """One prompt to be answered: the input row it is about, and which of several prompts about it this is."""

    row_id: str
    parent: Parent
    variant: str


class Inputs:
    """The planned rows of an artifact, by shard. Holds the input's file index and a few files, never all rows."""

    def __init__(self, source: Artifact, plan: Plan) -> None:
        manifest = source.manifest()
        if manifest is None:
            raise UserError(f"{source.where} is not finished: run the job that makes {source.name!r} first.")
        self.source = source
        self.plan = plan
        self.shards: list[dict[str, Any]] = [shard for shard in manifest["shards"] if RECORDS in shard["files"]]
        self.rows = lru_cache(maxsize=32)(self._rows)
        # Where each file's rows begin, over all rows (key "") and among the rows of one kind.
        self.starts = {kind: self._starts(kind) for kind in ("", *plan.mix)}

    def attempt_read(self, shard: int) -> None:
        """Name no attempt: the plan has the digest of all records of the input."""

    def of_shard(self, shard: int) -> list[PlannedRow[Any]]:
        """The planned rows of one shard, in order."""
        return [self._row(i) for i in self.plan.rows_of(shard)]

    def _row(self, i: int) -> PlannedRow[Any]:
        if self.plan.mix:
            kind, turn = kind_and_turn(self.plan.mix, i)
            index, variant = turn % self.starts[kind][-1], str(turn // self.starts[kind][-1])
        else:
            kind = ""
            place, variant = i // len(self.plan.variants), self.plan.variants[i % len(self.plan.variants)]
            index = place * self.starts[""][-1] // -(-self.plan.rows // len(self.plan.variants))
        file = bisect.bisect_right(self.starts[kind], index) - 1
        parent = self.rows(file, kind)[index - self.starts[kind][file]]
        return PlannedRow(row_id=content_id(parent["id"], variant), parent=parent, variant=variant)

    def _rows(self, file: int, kind: str) -> list[Row]:
        if kind:
            return [row for row in self.rows(file, "") if row["kind"] == kind]
        rows: list[Row] = self.source.read(self.shards[file]["files"][RECORDS]["path"]).to_pylist()
        return rows

    def _starts(self, kind: str) -> list[int]:
        counts = [shard["counts"] for shard in self.shards]
        rows = [count["kinds"].get(kind, 0) if kind else count["records"] for count in counts]
        return [0, *accumulate(rows)]


class FollowedInputs:
    """The planned rows of an artifact whose shard k is shard k of its input, committed but perhaps not published."""

    def __init__(self, source: Artifact) -> None:
        self.source = source

    def attempt_read(self, shard: int) -> str:
        """Name the attempt at a shard that counts now. Raises Interrupted where the shard has no commit yet."""
        return self._commit(shard).attempt

    def _commit(self, shard: int) -> Commit:
        commit = self.source.commit_of(shard)
        if commit is None:
            raise Interrupted(
                f"shard {shard} of {self.source.where} is not written yet, and this job works on it.\n"
                f"Run `speed-ray {PRODUCED_BY[self.source.name]}` as well; then run the same command again."
            )
        return commit

    def of_shard(self, shard: int) -> list[PlannedRow[Any]]:
        """Each record, then each reject of the shard as a row of variant `UPSTREAM_REJECTED` with id and kind only.

        Raises Interrupted where the shard has no commit yet.
        """
        commit = self._commit(shard)
        records, rejects = (
            self.source.read(commit.files[role].path).to_pylist() if role in commit.files else []
            for role in (RECORDS, REJECTS)
        )
        written = [PlannedRow(row_id=row["id"], parent=row, variant="") for row in records]
        missing = [
            PlannedRow(
                row_id=row["row_id"], parent={"id": row["row_id"], "kind": row["kind"]}, variant=UPSTREAM_REJECTED
            )
            for row in rejects
        ]
        return written + missing


def read_records(source: Artifact, wanted: range) -> list[Any]:
    """Read some records of a published artifact, by their indices over all of its files."""
    found: list[Any] = []
    begin = 0
    for file in source.record_files().values():
        inside = range(max(wanted.start, begin), min(wanted.stop, begin + file.rows))
        if inside:
            found += source.read(file.path).slice(inside.start - begin, len(inside)).to_pylist()
        begin += file.rows
    return found


def weighted_round_robin(mix: dict[str, int]) -> list[str]:
    """Spread the kinds evenly over one cycle of `sum(weights)` rows (smooth weighted round-robin)."""
    # In the order of their names: a plan that was read back from storage has lost the one it was written in.
    credit = dict.fromkeys(sorted(mix), 0)
    cycle = []
    for _ in range(sum(mix.values())):
        credit = {kind: credit[kind] + mix[kind] for kind in credit}
        chosen = max(credit, key=lambda kind: credit[kind])
        credit[chosen] -= sum(mix.values())
        cycle.append(chosen)
    return cycle


@lru_cache(maxsize=8)
def _cycle(mix: tuple[tuple[str, int], ...]) -> tuple[list[tuple[str, int]], dict[str, int]]:
    seen: dict[str, int] = dict.fromkeys(dict(mix), 0)
    places = []
    for kind in weighted_round_robin(dict(mix)):
        places.append((kind, seen[kind]))
        seen[kind] += 1
    return places, seen


def kind_and_turn(mix: dict[str, int], i: int) -> tuple[str, int]:
    """Return the kind of planned row i and how many rows of that kind come before it."""
    places, per_cycle = _cycle(tuple(mix.items()))
    kind, place = places[i % len(places)]
    return kind, (i // len(places)) * per_cycle[kind] + place
