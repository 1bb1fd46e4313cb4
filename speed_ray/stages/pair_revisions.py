"""Pair revisions for the revisor's DPO: chosen is the teacher's revision, rejected the revisor's own.

Where its own revision was not fit, or is the teacher's word for word, the example as it was before is rejected.
"""

from speed_ray.executor.stage import artifact_identity
from speed_ray.recipes.schema import Recipe
from speed_ray.records import PREFERENCE_PAIR, PreferenceRow, RevisionRow
from speed_ray.stages import driver_stage
from speed_ray.storage.fingerprint import code_digests
from speed_ray.storage.run import OWN_REVISIONS, REVISION_PAIRS, REVISIONS, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import Artifact


def pair_revisions(run: Run, recipe: Recipe) -> Artifact:
    """Publish a preference pair for each of the teacher's revisions that differs from the text to reject."""
    revisions, own, artifact = (run.artifact(name) for name in (REVISIONS, OWN_REVISIONS, REVISION_PAIRS))
    identity = {
        "code": code_digests(__name__),
        "input": artifact_identity(revisions),
        "own": artifact_identity(own),
    }
    manifest = revisions.manifest()
    assert manifest is not None
    plan = Plan(
        REVISION_PAIRS, manifest["counts"]["records"], recipe.revise.shard_rows, input=REVISIONS, identity=identity
    )
    replies = {row["parent_id"]: row["reply"] for row in own.records()}  # as many as there are lists of candidates
    driver_stage.publish_rows(
        artifact, plan, PREFERENCE_PAIR, (_pair(row, replies.get(row["id"])) for row in revisions.records())
    )
    return artifact


def _pair(revision: RevisionRow, own: str | None) -> driver_stage.RowResult:
    weaker = [text for text in (own, revision["example"]) if text is not None and text != revision["reply"]]
    if not weaker:
        detail = "the teacher left the example as it was, and so did the revisor"
        row_id, parent_id, kind = revision["id"], revision["parent_id"], revision["kind"]
        return driver_stage.reject(
            row_id, parent_id, REVISION_PAIRS, "nothing_to_prefer", detail, revision["reply"], kind
        )
    pair: PreferenceRow = {
        "id": revision["id"],
        "row_id": revision["row_id"],
        "parent_id": revision["parent_id"],
        "kind": revision["kind"],
        "topic": revision["topic"],
        "messages": revision["messages"],
        "chosen": revision["reply"],
        "rejected": weaker[0],
        "model": revision["model"],
    }
    return driver_stage.RowResult(revision["id"], pair, None)
