"""Read what each artifact of a run was planned, committed and rejected, and draw samples of its rejects."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from speed_ray.console.status import ArtifactStatus, breakdown, dollars_of, measured, standing_of
from speed_ray.recipes.schema import Recipe
from speed_ray.records import Row, content_id
from speed_ray.report.shown_text import NAME, TEXT, most, shown_text
from speed_ray.report.unreadable import Faults
from speed_ray.storage.run import ARTIFACTS, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import REJECTS, Artifact, Commit

SAMPLES = 3  # of each reason
REASONS = 25  # of an artifact that are told apart


@dataclass(frozen=True)
class Leg:
    """Holds one artifact with all its commits."""

    artifact: Artifact
    plan: Plan
    commits: list[Commit]
    standing: ArtifactStatus

    @property
    def name(self) -> str:
        """Return the artifact's name."""
        return self.artifact.name

    @property
    def seconds(self) -> float:
        """Return the seconds from the first shard's start to the last commit."""
        return max(c.finished for c in self.commits) - min(c.started for c in self.commits) if self.commits else 0.0


def read_legs(run: Run, faults: Faults) -> list[Leg]:
    """Read every artifact that was begun, in the order of making."""
    legs = (faults.read(name, None, _read_leg, run.artifact(name)) for name in ARTIFACTS)
    return [leg for leg in legs if leg]


def _read_leg(artifact: Artifact) -> Leg | None:
    plan = artifact.plan()
    if plan is None:
        return None
    commits = list(artifact.commits())
    return Leg(artifact, plan, commits, standing_of(artifact, plan, commits))


def describe_leg(leg: Leg, recipe: Recipe | None, faults: Faults) -> dict[str, Any]:
    """Return the row of an artifact in the funnel, what status says of it, and its reasons with samples."""
    standing, counts = leg.standing, leg.standing.counts
    done = counts.accepted + counts.rejected
    said = faults.read(f"what the rows of {leg.name} tell", [], measured, leg.artifact, standing)
    samples = faults.read(f"samples of the rejects of {leg.name}", {}, draw_rejects, leg)
    return {
        "name": leg.name,
        "state": standing.state,
        "standing": standing,
        "counts": counts,
        "waiting": max(0, standing.planned - done),
        "said": [shown_text(line.strip(), TEXT) for line in (*_mined(standing), *said)],
        "kinds": most(counts.kinds, REASONS),
        "reasons": [
            {"reason": shown_text(reason), "count": count, "samples": samples.get(reason, [])}
            for reason, count in sorted(counts.reasons.items(), key=lambda pair: (-pair[1], pair[0]))[:REASONS]
        ],
        "reasons_left": max(0, len(counts.reasons) - REASONS),
        "seconds": leg.seconds,
        "busy": sum(commit.finished - commit.started for commit in leg.commits),
        "begun": _moment(min((commit.started for commit in leg.commits), default=None)),
        "ended": _moment(max((commit.finished for commit in leg.commits), default=None)),
        "rate": done / leg.seconds if leg.seconds > 0 else None,
        "dollars": dollars_of(recipe, standing) if recipe else None,
    }


def _mined(standing: ArtifactStatus) -> list[str]:
    told = len(standing.counts.kinds) + len(standing.counts.reasons)  # which stand in tables of their own
    return breakdown(standing)[told:]


def draw_rejects(leg: Leg) -> dict[str, list[dict[str, str]]]:
    """Draw the rejects of each reason: from shards in the order of a hash, of each those with the lowest ids."""
    counts = leg.standing.counts.reasons
    wanting = dict.fromkeys(sorted(counts, key=lambda reason: -counts[reason])[:REASONS], SAMPLES)
    drawn: dict[str, list[dict[str, str]]] = {reason: [] for reason in wanting}
    for commit in sorted(leg.commits, key=lambda commit: content_id(str(commit.shard))):
        due = {reason for reason in commit.counts.reasons if len(drawn.get(reason, range(SAMPLES))) < SAMPLES}
        if due and REJECTS in commit.files:
            for row in _lowest(leg.artifact.read(commit.files[REJECTS].path).to_pylist(), due):
                if len(drawn[row["reason"]]) < SAMPLES:
                    drawn[row["reason"]].append(_shown_reject(row))
    return drawn


def _lowest(rows: Sequence[Row], reasons: set[str]) -> list[Row]:
    return sorted((row for row in rows if row["reason"] in reasons), key=lambda row: str(row["row_id"]))


def _shown_reject(row: Row) -> dict[str, str]:
    limits = {"row_id": NAME, "kind": NAME, "detail": TEXT, "text": TEXT}
    return {name: shown_text(row.get(name) or "", limit) for name, limit in limits.items()}


def _moment(seconds: float | None) -> str:
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"
