"""Embed the passages of a corpus with the reference model, once for a run, into `passage_embeddings`.

A shard that is committed is not embedded again. Another reference, or other passages, make all of it anew: a vector is
of use only beside those of the same model.
"""

from collections.abc import Collection
from functools import partial

import numpy as np

from speed_ray.curation.reference_model import ReferenceModel, Vectors, reference_digest, reference_folder
from speed_ray.executor.stage import artifact_identity, count_records
from speed_ray.recipes.curate_settings import Curate
from speed_ray.records import PASSAGE_EMBEDDING, PassageRow, titled_text
from speed_ray.stages import driver_stage
from speed_ray.storage.fingerprint import code_digests
from speed_ray.storage.planned_rows import read_records
from speed_ray.storage.run import PASSAGE_EMBEDDINGS, PASSAGES, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import Artifact

SHARD_ROWS = 1_024


def plan_embeddings(run: Run, settings: Curate) -> Plan:
    """Plan a vector for each passage. Raises UserError before the passages are published."""
    assert settings.reference is not None
    passages = run.artifact(PASSAGES)
    identity = {
        "code": code_digests(__name__),
        "input": artifact_identity(passages),
        "reference": reference_digest(settings.reference),
    }
    return Plan(PASSAGE_EMBEDDINGS, count_records(passages), SHARD_ROWS, input=PASSAGES, identity=identity)


def publish_embeddings(run: Run, plan: Plan, settings: Curate) -> Artifact:
    """Embed the passages, on Ray's workers where the recipe says so."""
    artifact = run.artifact(PASSAGE_EMBEDDINGS)
    existing = artifact.plan()
    if existing is not None and existing.digest != plan.digest:
        artifact.replace_plan(plan, "was made by another reference or version, or of other passages")
    driver_stage.publish_shards(
        artifact, plan, PASSAGE_EMBEDDING, lambda pending: _embed_shards(run, plan, settings, pending)
    )
    return artifact


def _embed_shards(run: Run, plan: Plan, settings: Curate, pending: Collection[int]) -> driver_stage.Shards:
    assert settings.reference is not None
    here = partial(_ShardEmbedder, run.artifact(PASSAGES), plan, settings.reference)
    in_worker = partial(_embedder_in_worker, run.uri, plan, settings.reference)
    return driver_stage.map_shards("curate", sorted(pending), settings.workers, here, in_worker)


def _embedder_in_worker(uri: str, plan: Plan, reference: str) -> "_ShardEmbedder":
    return _ShardEmbedder(Run(uri).artifact(PASSAGES), plan, reference)


class _ShardEmbedder:
    """Embed a shard of the plan."""

    def __init__(self, passages: Artifact, plan: Plan, reference: str) -> None:
        self.passages = passages
        self.plan = plan
        self.model = ReferenceModel(reference_folder(reference))

    def __call__(self, shard: int) -> list[driver_stage.RowResult]:
        passages: list[PassageRow] = read_records(self.passages, self.plan.rows_of(shard))
        vectors: Vectors = self.model.embed_documents([titled_text(row) for row in passages]).astype(np.float16)
        names = [row["id"] for row in passages]
        rows = zip(names, vectors, strict=True)
        return [driver_stage.RowResult(name, {"id": name, "vector": vector}, None) for name, vector in rows]
