"""Withdraw what is damaged in a run, and name all that was made of it, which its next jobs may have to make anew.

A shard that a model or an endpoint makes anew has other rows. A job that finds its plan's inputs changed so, and
nothing else, in a run that was repaired, withdraws what it made of the former rows (`Artifact.ensure_plan`,
`Model.ensure_plan`). Where the rows come out as they were, all that follows stays.
"""

from typing import Any

from speed_ray.storage.run import (
    ARTIFACTS,
    CANDIDATES,
    EXAMPLES,
    OWN_REVISIONS,
    PRODUCED_BY,
    REVISED_EXAMPLES,
    REWRITTEN_EXAMPLES,
    Run,
)
from speed_ray.storage.shards import mark_repaired
from speed_ray.storage.trained_models import Model
from speed_ray.storage.verify import VerifyResult

MODELS = tuple(name for name in PRODUCED_BY if name not in ARTIFACTS)
WRITTEN_BY = {  # the models of a run that may write an artifact's records
    CANDIDATES: ("junior",),
    OWN_REVISIONS: ("revisor_sft",),
    EXAMPLES: ("junior", "senior"),
    REWRITTEN_EXAMPLES: ("junior", "senior"),
    REVISED_EXAMPLES: ("revisor",),
}


def repair_run(run: Run, verdicts: list[VerifyResult]) -> int:
    """Withdraw every damaged commit, so that a rerun makes its shard again; return how many. Only while no job runs.

    A publication that does not hold goes too: the next drive publishes what its commits say by then. What follows
    shard by shard is withdrawn with the shard that it was made of.
    """
    broken = [verdict for verdict in verdicts if not verdict.holds]
    if broken:
        mark_repaired(run.store)
    damaged = {(verdict.artifact, commit.shard) for verdict in broken for commit in verdict.damaged}
    damaged |= {(REVISED_EXAMPLES, shard) for name, shard in damaged if name == EXAMPLES}
    for verdict in broken:
        run.artifact(verdict.artifact).unpublish()
    withdrawn = 0
    for name, shard in sorted(damaged):
        commit = run.artifact(name).commit_of(shard)
        if commit is not None:
            run.artifact(name).withdraw(commit)
            withdrawn += 1
    return withdrawn


def made_of(run: Run, names: list[str]) -> list[str]:
    """Name the artifacts and models that the run has begun and that were made of those named, directly or not."""
    inputs = {name: _inputs(run, name) for name in (*ARTIFACTS, *MODELS)}
    found = set(names)
    while more := {name for name, of in inputs.items() if of & found} - found:
        found |= more
    return [name for name in inputs if name in found - set(names)]


def _inputs(run: Run, name: str) -> set[str]:
    """Return what an artifact or a model was made of by its plan; nothing where it has none."""
    if name in ARTIFACTS:
        plan = run.artifact(name).plan()
        if plan is None:
            return set()
        written_by = WRITTEN_BY.get(name, ())
        return {plan.input or "", *_artifacts(plan.identity), *written_by}
    identity = Model(run, name).plan() or {}
    return {(identity.get("start") or {}).get("model") or "", *_artifacts(identity)}


def _artifacts(identity: dict[str, Any]) -> set[str]:
    return {value["artifact"] for value in identity.values() if isinstance(value, dict) and "artifact" in value}
