"""Verify from storage alone that every planned row of a run is there once, accepted or rejected."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from speed_ray.errors import UserError
from speed_ray.storage.planned_rows import FollowedInputs, Inputs
from speed_ray.storage.rounds import later_rounds
from speed_ray.storage.run import ARTIFACTS, OF_ROUND, REVISED_EXAMPLES, REWRITTEN_EXAMPLES, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import RECORDS, REJECTS, Artifact, Commit, manifest_of


@dataclass
class VerifyResult:
    """Holds the result for one artifact. `problems` are sentences, each naming the file it is about."""

    artifact: str
    planned: int = 0
    accepted: int = 0
    rejected: int = 0
    duplicates: int = 0
    missing: int = 0
    published: bool = False
    problems: list[str] = field(default_factory=list)
    damaged: list[Commit] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Tell if every planned row is there exactly once and no file is damaged."""
        whole = self.planned == self.accepted + self.rejected and not self.duplicates and not self.missing
        return whole and self.published and not self.problems

    def __str__(self) -> str:
        return (
            f"planned {self.planned:,} = accepted {self.accepted:,} + rejected {self.rejected:,} · "
            f"duplicates {self.duplicates:,} · missing {self.missing:,}"
        )


def verify(run: Run) -> list[VerifyResult]:
    """Verify every artifact that was begun, reading all committed files, one shard at a time in memory."""
    verdicts = _verify_artifacts(run, ARTIFACTS)
    if not verdicts:
        raise UserError(f"{run.uri} holds nothing to verify: no job was begun there. Check the folder's name.")
    return verdicts


def verify_rounds(run: Run) -> Iterator[tuple[Run, list[VerifyResult]]]:
    """Yield a run with the results of all its artifacts, then each later round of it with those of its own."""
    yield run, verify(run)
    for _, later in later_rounds(run):
        yield later, _verify_artifacts(later, OF_ROUND)


def _verify_artifacts(run: Run, names: Sequence[str]) -> list[VerifyResult]:
    verdicts: list[VerifyResult] = []
    for name in names:
        artifact = run.artifact(name)
        plan = artifact.plan()
        if plan is not None:
            verdicts.append(_verify(run, artifact, plan, verdicts))
        elif artifact.has_commits():
            lost = f"{artifact.where}/plan.json is missing. Run the same job again: it writes it anew."
            verdicts.append(VerifyResult(name, problems=[lost]))
    return verdicts


def _verify(run: Run, artifact: Artifact, plan: Plan, before: list[VerifyResult]) -> VerifyResult:
    verdict = VerifyResult(artifact.name, planned=plan.rows, published=artifact.manifest() is not None)
    inputs = _inputs(run, plan, verdict, before)
    commits = list(artifact.commits())
    seen = 0
    for commit in commits:
        if commit.plan != plan.digest or commit.shard >= plan.shards:
            verdict.problems.append(f"{artifact.where}: the commit of shard {commit.shard} belongs to another plan")
            continue
        seen += len(plan.rows_of(commit.shard))
        if artifact.is_outdated(plan, commit):
            verdict.damaged.append(commit)
            verdict.problems.append(f"{artifact.where}: shard {commit.shard} was made of rows that are no more")
        elif damage := _damage(artifact, commit):
            verdict.damaged.append(commit)
            verdict.problems += damage
        else:
            _count(verdict, artifact, plan, inputs, commit)
    verdict.missing += plan.rows - seen
    if verdict.published and artifact.get("_MANIFEST.json") != manifest_of(plan, commits):
        verdict.problems.append(f"{artifact.where}/_MANIFEST.json does not say what the commits say")
    verdict.problems += _former_inputs(run, artifact, plan)
    if not verdict.published and not verdict.problems:
        verdict.problems.append(f"{artifact.where} is not published yet: run its job again to finish it")
    return verdict


def _former_inputs(run: Run, artifact: Artifact, plan: Plan) -> list[str]:
    """Say of each input whose records are others than those that the plan was made for that it is so."""
    problems = []
    for planned in plan.identity.values():
        if not isinstance(planned, dict) or not {"artifact", "sha256"} <= set(planned):
            continue
        source = run.artifact(planned["artifact"])
        if source.manifest() is not None and source.records_digest() != planned["sha256"]:
            problems.append(f"{artifact.where} was made of {source.name} as they were before: its job makes it anew")
    return problems


def _inputs(run: Run, plan: Plan, verdict: VerifyResult, before: list[VerifyResult]) -> Inputs | FollowedInputs | None:
    """Return the planned rows to compare with the committed ones; None for a driver stage."""
    follows = plan.stage in (REWRITTEN_EXAMPLES, REVISED_EXAMPLES)
    if not plan.input or not (plan.variants or plan.mix or follows):
        return None
    source = run.artifact(plan.input)
    if any(not other.holds for other in before if other.artifact == source.name):
        verdict.problems.append(f"{verdict.artifact} cannot be held against {source.where}, which is not whole")
        return None
    return FollowedInputs(source) if follows else Inputs(source, plan)


def _damage(artifact: Artifact, commit: Commit) -> list[str]:
    found = ((entry.path, artifact.damage(entry)) for entry in commit.files.values())
    return [f"{artifact.where}/{path}: {damage}" for path, damage in found if damage]


def _count(
    verdict: VerifyResult, artifact: Artifact, plan: Plan, inputs: Inputs | FollowedInputs | None, commit: Commit
) -> None:
    accepted = set(_column(artifact, commit, RECORDS, plan.key))
    rejected = _column(artifact, commit, REJECTS, "row_id")
    ids = Counter([*accepted, *rejected])
    # Planned ids of two shards never meet: an id is a hash of (parent, variant), and parents are verified themselves.
    rows = len(plan.rows_of(commit.shard))
    expected = Counter(row.row_id for row in inputs.of_shard(commit.shard)) if inputs else Counter(set(ids))
    records = Counter(_column(artifact, commit, RECORDS, "id"))
    verdict.accepted += len(accepted)
    verdict.rejected += len(rejected)
    verdict.duplicates += (ids - expected).total() + (records - Counter(set(records))).total()
    verdict.missing += (expected - ids).total() if inputs else max(0, rows - len(ids))


def _column(artifact: Artifact, commit: Commit, role: str, column: str) -> list[str]:
    if role not in commit.files:
        return []
    values: list[str] = artifact.read(commit.files[role].path, [column])[column].to_pylist()
    return values
