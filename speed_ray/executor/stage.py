"""Define `Stage`, the base class of every step that asks a model; its subclasses are in `stages/`, one a file."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from operator import attrgetter
from typing import Any, ClassVar, Generic, Literal, TypeVar

import pyarrow as pa

from speed_ray import kinds
from speed_ray.engines import model_folder
from speed_ray.engines.base import PromptContext, Reply, Request
from speed_ray.errors import UserError
from speed_ray.prompts import render
from speed_ray.recipes.engine_settings import EngineConfig, VllmEngine
from speed_ray.recipes.schema import Recipe
from speed_ray.recipes.stage_settings import SampledStage, Sampling, StageSettings
from speed_ray.records import Logprobs, Message, Rejected, Row
from speed_ray.storage.fingerprint import code_digests, identity_fields
from speed_ray.storage.planned_rows import Parent, PlannedRow
from speed_ray.storage.run import PRODUCED_BY, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import Artifact

Record = TypeVar("Record", bound=Row)
ONE_TOKEN = Sampling(temperature=0.0, max_tokens=1)  # of a stage that asks for log-probabilities, not for a text


class Stage(ABC, Generic[Parent, Record]):
    """Render a request for each planned row and parse the reply into records; shard_worker.py runs both.

    A subclass sets the class variables and implements `plan`, `request` and `parse`. Stages travel to Ray actors as
    their recipe and engine, and are made anew there, because templates cannot be pickled.
    """

    name: ClassVar[str]  # the artifact that it makes
    key: ClassVar[str]  # of its settings in the recipe: "judge", "score.fluency"
    record_schema: ClassVar[pa.Schema]
    role: ClassVar[Literal["teacher", "generator"]] = "teacher"  # the recipe's key of the engine, unless one is given

    def __init__(self, recipe: Recipe, engine: EngineConfig | None = None) -> None:
        self.recipe = recipe
        self.engine: EngineConfig = engine or getattr(recipe, self.role)
        self.settings: StageSettings = attrgetter(self.key)(recipe)
        self.prompts = render.load_prompts(recipe.prompts)
        sampled = self.settings if isinstance(self.settings, SampledStage) else None
        self.sampling = sampled.sampling if sampled else ONE_TOKEN
        self.max_retries = sampled.max_retries if sampled else 0
        self._sampling = self.sampling.model_dump()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.recipe, self.engine)

    @abstractmethod
    def plan(self, run: Run) -> Plan:
        """Return the planned rows. Raises UserError where the stage's input is missing or holds nothing."""

    @abstractmethod
    def request(self, row: PlannedRow[Parent]) -> Request | None:
        """Render the request for a planned row, or return None where no model is needed (see `without_model`)."""

    @abstractmethod
    def parse(self, row: PlannedRow[Parent], request: Request, reply: Reply) -> list[Record]:
        """Parse a reply into one or more records. Raises `records.Rejected` for a malformed or unfit one."""

    def without_model(self, row: PlannedRow[Parent]) -> list[Record]:
        """Return the records of a row that `request` returned None for, or raise `records.Rejected`."""
        raise NotImplementedError(f"{self.name}: every row has a request")

    def fallback(self, row: PlannedRow[Parent], rejected: Rejected) -> list[Record]:
        """Return the records of a row whose replies were all rejected; by default raise the last rejection."""
        raise rejected

    def kind_of(self, row: PlannedRow[Parent]) -> str:
        """Return the kind of example that a planned row is about: its parent's, or where that has none its variant."""
        return str(row.parent.get("kind", row.variant))

    def make_request(
        self, row_id: str, messages: list[Message], schema: dict[str, Any] | None, context: PromptContext, n: int = 1
    ) -> Request:
        """Return a request for `n` samples with this stage's sampling settings, held to a JSON schema if it has one.

        The text of a request without one is continued by a line.
        """
        return Request(row_id, messages, n, schema=schema, context=context, **self._sampling)

    def request_logprobs(self, row_id: str, messages: list[Message], wanted: Logprobs) -> Request:
        """Return a request for log-probabilities, of the messages' own tokens or of the first that follows them."""
        return Request(row_id, messages, logprobs=wanted, **self._sampling)

    def plan_per_record(self, source: Artifact, variants: Sequence[str]) -> Plan:
        """Plan a prompt for each record of a published artifact and each variant. Raises UserError if it is empty."""
        identity = self.identity(artifact_identity(source))
        rows = count_records(source) * len(variants)
        return Plan(self.name, rows, self.settings.shard_rows, source.name, tuple(variants), identity=identity)

    def identity(self, source: dict[str, Any]) -> dict[str, Any]:
        """Return all that decides the stage's rows, `source` among it: a resume with other values is refused."""
        recipe = self.recipe
        # A kind that nobody asks for, such as one that is added later, makes no other run of an old one.
        mixed = [f"{kinds.__name__}.{name}" for name, weight in recipe.mix.items() if weight]
        return {
            "code": code_digests(type(self).__module__, render.__name__, *mixed),
            "input": source,
            "engine": engine_identity(self.engine, self.role),
            "prompts": self.prompts.digests,
            "sampling": self._sampling,
            "retries": self.max_retries,
            "languages": recipe.languages,
            "slots": recipe.slots,
            "seed": recipe.seed,
        }


def artifact_identity(source: Artifact) -> dict[str, Any]:
    """Return the digest of a published artifact's records. Raises UserError before its publication."""
    manifest = source.manifest()
    if manifest is None:
        raise UserError(
            f"{source.where} is not finished, and this job works on it.\n"
            f"Run `speed-ray {PRODUCED_BY[source.name]}` first, with the same --recipe and --run."
        )
    return {"artifact": source.name, "plan": manifest["plan"], "sha256": source.records_digest()}


def plan_identity(source: Plan) -> dict[str, Any]:
    """Return the digest of the plan of an artifact that is still being written, in place of its records' digest."""
    return {"artifact": source.stage, "plan": source.digest}


def count_records(source: Artifact) -> int:
    """Count the records of a published artifact. Raises UserError where there is none."""
    records = sum(file.rows for file in source.record_files().values())
    if not records:
        raise UserError(
            f"{source.where} holds no record, so nothing can be made of it.\n"
            f"See why its rows were rejected with: speed-ray status {source.store.uri}"
        )
    return records


def engine_identity(config: EngineConfig, role: str) -> dict[str, Any]:
    """Return all of an engine that decides its replies: settings and weights; `role` is its key in the recipe."""
    decides = identity_fields(config)
    if isinstance(config, VllmEngine):
        decides["weights"] = model_folder.identify_model(config.model, f"{role}.model") or config.revision
        if config.chat_template:
            decides["chat_template"] = model_folder.read_chat_template(config.chat_template)
        if config.adapter and (digest := model_folder.identify_model(config.adapter, f"{role}.adapter")):
            decides["adapter_weights"] = digest
    return decides
