"""Plan the trainings of a run: junior, senior, revisor, embedder (SPEED, section 3).

Needs no torch: the driver makes a plan, and every worker gets it pickled.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from speed_ray import __version__
from speed_ray.engines.embedder_folder import check_embedder_folder, check_embedder_model
from speed_ray.engines.model_folder import (
    MINIATURE,
    check_architecture,
    ensure_checked_folder,
    find_folder,
    identify_model,
    read_chat_template,
)
from speed_ray.errors import UserError
from speed_ray.evaluation.datasets import EvaluationTask, local_tasks
from speed_ray.executor.stage import artifact_identity
from speed_ray.recipes.engine_settings import VllmEngine
from speed_ray.recipes.schema import Evaluate, EvaluationSet, Recipe
from speed_ray.recipes.training_settings import Dpo, Embedder, Sft, TrainingWorkers
from speed_ray.storage.fingerprint import identity_fields
from speed_ray.storage.run import (
    DRAFTS,
    PRODUCED_BY,
    REVISION_PAIRS,
    REVISIONS,
    VERDICTS,
    Run,
    finished_examples,
    finished_pairs,
)
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import Artifact
from speed_ray.storage.trained_models import EMBEDDER, Model, base_weights_of

Report = Callable[[dict[str, Any]], None]  # takes the metrics of a step

JUNIOR, SENIOR, REVISOR, REVISOR_SFT = "junior", "senior", "revisor", "revisor_sft"
GUIDE_KEY = "embedder.guide.model"  # of the recipe, for messages


@dataclass(frozen=True)
class TrainingPlan:
    """Plan of one training: everything that a worker must know, wherever it runs.

    `base` is a model folder or hub name. `start` names the model of the same run that training begins with, which is
    DPO's reference policy too; None begins with the base. A full model as start gets fresh adapters where the settings
    have LoRA. `data` names an artifact of prompts with replies (sft), of preference pairs (dpo) or of examples
    (contrastive).
    """

    name: str  # of the model
    key: str  # of the settings in the recipe, for messages
    run: str  # URI
    method: Literal["sft", "dpo", "contrastive"]
    base: str
    revision: str | None
    start: str | None
    data: str
    settings: Sft | Dpo | Embedder
    seed: int
    chat_template: str | None  # Jinja text, for a base without one
    completion: bool = False  # prompts are plain texts that a line continues, without a chat template

    @property
    def model(self) -> Model:
        """The model that is trained."""
        return Model(Run(self.run), self.name)

    @property
    def base_key(self) -> str:
        """The recipe's key of the base, for messages."""
        return "embedder.model" if self.method == "contrastive" else "generator.model"

    @property
    def base_weights(self) -> Model | None:
        """The model of this run whose full weights training begins with; None where these are the base's."""
        return base_weights_of(Run(self.run), self.start)

    @property
    def workers(self) -> TrainingWorkers:
        """The number of workers, and the resources of each."""
        return self.settings.workers

    @property
    def global_batch_size(self) -> int:
        """Rows in a step, over all workers."""
        return self.settings.global_batch_size

    def begin(self) -> bool:
        """Write plan.json; return True unless the model is published. Raises UserError where another plan is there."""
        self.model.ensure_plan(training_identity(self))
        return self.model.manifest() is None


def plan_junior(run: Run, recipe: Recipe) -> TrainingPlan:
    """Plan the junior generator: SFT of the base on the teacher's drafts (SPEED, section 3.1), or on other lessons."""
    return _plan_alignment(run, recipe, JUNIOR, "junior", None, DRAFTS, recipe.junior)


def plan_senior(run: Run, recipe: Recipe) -> TrainingPlan:
    """Plan the senior generator: DPO of the junior on a teacher's or the scores' verdicts (SPEED, section 3.2)."""
    _check_same_adapter(recipe.junior, "junior", recipe.senior, "senior")
    return _plan_alignment(run, recipe, SENIOR, "senior", JUNIOR, VERDICTS, recipe.senior)


def plan_revisor(run: Run, recipe: Recipe) -> list[TrainingPlan]:
    """Plan the revisor: SFT of the base or the junior on the teacher's revisions (SPEED, section 3.3), then DPO."""
    sft, dpo, start = recipe.revisor.sft, recipe.revisor.dpo, None
    if recipe.revisor.start == JUNIOR:
        _check_same_adapter(recipe.junior, "junior", sft, "revisor.sft")
        start = JUNIOR
    if not dpo:
        return [_plan_alignment(run, recipe, REVISOR, "revisor.sft", start, REVISIONS, sft)]
    _check_same_adapter(sft, "revisor.sft", dpo, "revisor.dpo")
    return [
        _plan_alignment(run, recipe, REVISOR_SFT, "revisor.sft", start, REVISIONS, sft),
        _plan_alignment(run, recipe, REVISOR, "revisor.dpo", REVISOR_SFT, REVISION_PAIRS, dpo),
    ]


def plan_embedder(run: Run, recipe: Recipe) -> TrainingPlan:
    """Plan the embedder: contrastive training on curated or scored examples, or on those of a synthesis that runs."""
    settings = recipe.embedder
    if settings is None:
        raise UserError(
            "embedder: this recipe has no such section, so there is nothing to train.\n"
            "Add one with embedder.model, the model to begin with."
        )
    if uneven := [count for count in settings.workers.counts if settings.global_batch_size % count]:
        raise UserError(
            f"embedder.global_batch_size: {settings.global_batch_size} rows cannot be divided evenly among the "
            f"{uneven[0]} workers of "
            "embedder.workers."
        )
    check_embedder_model(settings.model, settings.pooling)
    if settings.guide and settings.guide.model and (folder := find_folder(settings.guide.model, GUIDE_KEY)):
        check_embedder_folder(folder, GUIDE_KEY)
    guard_tasks(settings)  # sets that cannot be read are refused here
    return TrainingPlan(
        name=EMBEDDER,
        key="embedder",
        run=run.store.uri,
        method="contrastive",
        base=settings.model,
        revision=settings.revision,
        start=None,
        data=finished_examples(recipe) if settings.stream else finished_pairs(recipe),
        settings=settings,
        seed=recipe.seed,
        chat_template=None,
    )


def training_identity(training: TrainingPlan) -> dict[str, Any]:
    """Return all that determines the weights, as plan.json stores it. A resume requires the same.

    Raises UserError where the data or the model to start from is unfinished, or where there are too few rows.
    """
    if not is_streaming(training):
        manifest = finished_training_data(training).manifest()
        assert manifest is not None
        check_enough_rows(training, manifest["counts"]["records"])
    start = Model(Run(training.run), training.start).published()["digest"] if training.start else None
    weights = identify_model(training.base, training.base_key)
    named = {"name": training.base, "revision": training.revision}
    return {
        "code": __version__,
        "method": training.method,
        "base": {"weights": weights} if weights else named,
        "start": {"model": training.start, "digest": start} if start else None,
        "data": data_identity(training),
        "settings": identity_fields(training.settings),
        "chat_template": training.chat_template,
        **({"completion": True} if training.completion else {}),
        "seed": training.seed,
        **(_embedder_identity(training.settings) if isinstance(training.settings, Embedder) else {}),
    }


def _embedder_identity(settings: Embedder) -> dict[str, Any]:
    """Return what determines an embedder's weights beside its settings, each where it does."""
    found: dict[str, Any] = {}
    if settings.guide and settings.guide.model:
        found["guide"] = identify_model(settings.guide.model, GUIDE_KEY) or settings.guide.model
    if settings.load_best_model_at_end:
        found["scored_every"] = settings.save_steps
    if settings.merge and settings.merge.guards:
        bounds = [guard.max_drop for guard in settings.merge.guards]
        found["guards"] = [[task.digest, bound] for task, bound in zip(guard_tasks(settings), bounds, strict=True)]
    return found


def guard_tasks(settings: Embedder) -> list[EvaluationTask]:
    """List the guard sets of a merge as evaluation tasks. Raises UserError for one that cannot be read."""
    found = []
    for guard in settings.merge.guards if settings.merge else ():
        is_folder = "://" in guard.path or Path(guard.path).is_dir()
        wanted = [EvaluationSet(path=guard.path)]
        try:
            found += local_tasks(Evaluate(retrieval=wanted) if is_folder else Evaluate(sts=wanted))
        except UserError as error:
            raise UserError(f"embedder.merge.guards: {error}") from None
    return found


def is_streaming(training: TrainingPlan) -> bool:
    """Return True for a training on rows of a synthesis that may still be running."""
    return isinstance(training.settings, Embedder) and training.settings.stream


def streamed_plan(training: TrainingPlan) -> Plan:
    """Return the plan of the artifact that is streamed. Raises UserError where it has none yet."""
    artifact = Run(training.run).artifact(training.data)
    plan = artifact.plan()
    if plan is None:
        raise UserError(
            f"{artifact.where} is not begun, and {training.name} streams its rows ({training.key}.stream).\n"
            "Start the job that makes it first, with the same --recipe and --run."
        )
    return plan


def per_device_batch_size(settings: Sft | Dpo, workers: int) -> int:
    """Return the rows of one micro-batch. Raises UserError unless they divide a worker's share of the batch."""
    local, rest = divmod(settings.global_batch_size, workers)
    rows = min(settings.micro_batch_size, local)
    if rest or local % rows:
        raise UserError(
            f"A batch of {settings.global_batch_size} rows cannot be divided among {workers} workers that compute "
            f"{settings.micro_batch_size} rows at once.\n"
            "Set workers.num_workers and micro_batch_size so that their product divides global_batch_size; "
            "neither changes the model."
        )
    return rows


def count_steps(training: TrainingPlan, epoch_batches: float) -> int:
    """Return the number of steps of a training with so many batches in an epoch: at least one."""
    count = max(1, int(training.settings.num_train_epochs * epoch_batches))
    return min(count, training.settings.max_steps or count)


def check_enough_rows(training: TrainingPlan, rows: int, details: str = "") -> None:
    """Raise UserError, with `details`, where `rows` rows are too few for one step."""
    settings = training.settings
    if rows < settings.global_batch_size or settings.num_train_epochs * rows < settings.global_batch_size:
        needed = max(settings.global_batch_size, math.ceil(settings.global_batch_size / settings.num_train_epochs))
        raise UserError(
            f"{training.run}/{training.data} has {rows} rows to train {training.name} on, and one step needs {needed} "
            f"({training.key}.global_batch_size: {settings.global_batch_size}, "
            f"{training.key}.num_train_epochs: {settings.num_train_epochs:g}).\n{details}"
            f"Make more rows in another --run folder, or lower {training.key}.global_batch_size."
        )


def data_identity(training: TrainingPlan) -> dict[str, Any]:
    """Identify the training data: the artifact, its plan, and a hash over the files of its manifest.

    Of rows that are still being written there is no hash yet, but how often a shard was made anew.
    """
    if is_streaming(training):
        identity = {"artifact": training.data, "plan": streamed_plan(training).digest}
        withdrawals = training_data(training).withdrawals()
        return {**identity, "withdrawals": withdrawals} if withdrawals else identity
    return artifact_identity(finished_training_data(training))


def read_training_rows(artifact: Artifact, path: str) -> pa.Table:
    """Read the rows of one of an artifact's files, without held-out ones."""
    table = artifact.read(path)
    return table.filter(pc.equal(table["split"], "train")) if "split" in table.column_names else table


def training_data(training: TrainingPlan) -> Artifact:
    """Return the artifact to train on, finished or not."""
    return Run(training.run).artifact(training.data)


def finished_training_data(training: TrainingPlan) -> Artifact:
    """Return the artifact to train on. Raises UserError where it is not finished."""
    artifact = training_data(training)
    if artifact.manifest() is None:
        raise UserError(
            f"{artifact.where} is not finished, and {training.name} is trained on it.\n"
            f"Run `speed-ray {PRODUCED_BY[training.data]}` first, with the same --recipe and --run."
        )
    return artifact


def _plan_alignment(
    run: Run, recipe: Recipe, name: str, key: str, start: str | None, data: str, settings: Sft | Dpo
) -> TrainingPlan:
    base = _trainable_generator(recipe)
    for count in settings.workers.counts:
        per_device_batch_size(settings, count)
    if isinstance(settings, Dpo) and settings.label_smoothing and settings.loss_type not in ("sigmoid", "robust"):
        raise UserError(
            f"{key}.label_smoothing: {settings.loss_type} has none. Set it to 0, or loss_type to sigmoid or robust."
        )
    return TrainingPlan(
        name=name,
        key=key,
        run=run.store.uri,  # absolute: a worker of Ray Train has a working directory of its own
        method="sft" if isinstance(settings, Sft) else "dpo",
        base=base.model,
        revision=base.revision,
        start=start,
        data=data,
        settings=settings,
        seed=recipe.seed,
        chat_template=read_chat_template(base.chat_template) if base.chat_template else None,
        completion=base.completion,
    )


def _trainable_generator(recipe: Recipe) -> VllmEngine:
    """Return the recipe's generator. Raises UserError where it cannot be trained, as far as a driver can see."""
    generator = recipe.generator
    if not isinstance(generator, VllmEngine):
        raise UserError(
            f"generator.engine: {generator.engine} has no weights to train.\n"
            "Set generator.engine: vllm and generator.model to a model folder or hub name."
        )
    if generator.adapter is not None:
        raise UserError(
            "generator.adapter: training begins with the weights of generator.model alone, so remove this key.\n"
            "To train an adapter on, merge it into the model's weights first."
        )
    if not generator.model.startswith(MINIATURE):  # which the workers train; only one that is given can be wrong
        folder = ensure_checked_folder(generator, "generator")
        if folder:
            check_architecture(folder, "generator.model")
    return generator


def _check_same_adapter(first: Sft, first_key: str, then: Sft | Dpo, then_key: str) -> None:
    """Raise UserError where a training has other LoRA settings than the adapter that it begins with."""
    if first.lora and first.lora != then.lora:
        raise UserError(
            f"{then_key}.lora must equal {first_key}.lora, because the same adapter is trained further:\n"
            f"  {first_key}.lora: {first.lora}\n  {then_key}.lora: {then.lora}"
        )
