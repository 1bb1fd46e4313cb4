"""What a stage that asks a model declares: what to ask about one row, and what to make of the answer."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from speed_ray import __version__, kinds
from speed_ray.engines import model_folder
from speed_ray.engines.base import Reply, Request
from speed_ray.errors import UserError
from speed_ray.prompts.render import Prompts
from speed_ray.recipes.schema import EngineConfig, Recipe, VllmEngine
from speed_ray.recipes.schema import StageSettings as StageConfig
from speed_ray.records import Rejected, Row
from speed_ray.storage.fingerprint import identity_fields
from speed_ray.storage.planned_rows import PlannedRow
from speed_ray.storage.run import PRODUCED_BY
from speed_ray.storage.shards import RECORDS, Artifact, Plan


@dataclass(frozen=True)
class Stage:
    """Define one LLM stage: which prompts are asked, and how replies are parsed; shard_worker.py does the rest.

    `request` returns None for a row that needs no model (an sts task is its topic) or must not be asked about. `parse`
    turns a reply into one or more records or raises `records.Rejected`; the reply is None where the request was.
    `keep` makes the records of a row whose replies were all rejected, so that it is no reject: a stage that betters
    rows loses none.
    """

    name: str
    record: pa.Schema
    role: str  # who answers: the recipe's key, "teacher" or "generator"
    engine: EngineConfig
    settings: StageConfig
    seed: int
    request: Callable[[PlannedRow], Request | None]
    parse: Callable[[PlannedRow, Request | None, Reply | None], list[Row]]
    keep: Callable[[PlannedRow, Rejected], list[Row]] | None = None


def stage_identity(recipe: Recipe, source: Artifact, engine: EngineConfig, settings: StageConfig) -> dict[str, Any]:
    """All that decides a stage's rows, as a plan keeps it and as a difference is shown to the user."""
    return _decides(recipe, artifact_identity(source), engine, settings)


def plan_per_record(
    recipe: Recipe,
    source: Artifact,
    artifact: str,
    variants: Sequence[str],
    engine: EngineConfig,
    settings: StageConfig,
) -> Plan:
    """Plan a prompt for each record of a published artifact, in each variant. Raises UserError where there is none."""
    decides = stage_identity(recipe, source, engine, settings)
    rows = count_records(source) * len(variants)
    return Plan(artifact, rows, settings.shard_rows, input=source.name, variants=tuple(variants), identity=decides)


def count_records(source: Artifact) -> int:
    """How many records a published artifact holds. Raises UserError where there is none."""
    records = sum(file.rows for file in source.record_files().values())
    if not records:
        raise UserError(
            f"{source.where} holds no record, so nothing can be made of it.\n"
            f"See why its rows were rejected with: speed-ray status {source.store.uri}"
        )
    return records


def upstream_identity(recipe: Recipe, source: Plan, engine: EngineConfig, settings: StageConfig) -> dict[str, Any]:
    """`stage_identity` of a stage whose input is still being written: its plan stands for it."""
    return _decides(recipe, {"artifact": source.stage, "plan": source.digest}, engine, settings)


def artifact_identity(source: Artifact) -> dict[str, Any]:
    """What a published artifact holds, by its records' digest. Raises UserError before its publication."""
    manifest = source.manifest()
    if manifest is None:
        raise UserError(
            f"{source.where} is not finished, and this job works on it.\n"
            f"Run `speed-ray {PRODUCED_BY[source.name]}` first, with the same --recipe and --run."
        )
    return {"artifact": source.name, "plan": manifest["plan"], "sha256": _sha256(manifest)}


def _decides(recipe: Recipe, source: dict[str, Any], engine: EngineConfig, settings: StageConfig) -> dict[str, Any]:
    return {
        "code": __version__,
        "input": source,
        "engine": _engine_identity(engine, "teacher" if engine is recipe.teacher else "generator"),
        "prompts": Prompts(recipe.prompts).digests,
        # A kind that nobody asks for, such as one that is added later, makes no other run of an old one.
        "kinds": {name: kinds.kind_digest(name) for name, weight in recipe.mix.items() if weight},
        "sampling": settings.sampling.model_dump(),
        "retries": settings.retries,
        "languages": recipe.languages,
        "slots": recipe.slots,
        "seed": recipe.seed,
    }


def _engine_identity(config: EngineConfig, key: str) -> dict[str, Any]:
    decides = identity_fields(config)
    if isinstance(config, VllmEngine):
        folder = model_folder.resolve_model(config.model, f"{key}.model")
        decides["weights"] = model_folder.folder_digest(folder) if folder else config.revision
        if config.chat_template:
            decides["chat_template"] = model_folder.read_chat_template(config.chat_template)
        if config.adapter and (adapter := model_folder.resolve_model(config.adapter, f"{key}.adapter")):
            decides["adapter_weights"] = model_folder.folder_digest(adapter)
    return decides


def _sha256(manifest: dict[str, Any]) -> str:
    """Hash the records, all that the next stage reads: replies hold seconds, which no two drives have in common."""
    digests = [shard["files"][RECORDS]["sha256"] for shard in manifest["shards"] if RECORDS in shard["files"]]
    return hashlib.sha256("".join(digests).encode()).hexdigest()
