"""Contrastive training on one worker of many: from curated shards to a published embedder, resumed on the way.

SPEED, section 3.4, and E5 (arXiv 2401.00368) where that leaves something open. Every weight's gradient is that of the
whole global batch (contrastive.py), whatever the number of workers and of texts held at once.
"""

import json
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from transformers import set_seed
from transformers.utils.logging import disable_progress_bar

from speed_ray.engines.model_folder import fetch_model_folder
from speed_ray.errors import UserError
from speed_ray.recipes.schema import Embedder
from speed_ray.training import distributed, model_card, plan, resume
from speed_ray.training.checkpoints import Checkpoints, only_data_is_loaded
from speed_ray.training.contrastive import encoder, loader, shuffle_windows, streaming, train_step
from speed_ray.training.contrastive.ddp import Replicated
from speed_ray.training.contrastive.encoder import Encoder
from speed_ray.training.contrastive.loader import Corpus, LocalBatch, Reader
from speed_ray.training.contrastive.shuffle_windows import WindowBatches
from speed_ray.training.contrastive.train_step import ContrastiveConfig
from speed_ray.training.metrics_log import LOGGED, MetricsLog
from speed_ray.training.plan import Report, TrainingPlan

WINDOW = 32  # batches that are drawn together, at least; a window's texts are in memory
FOLLOWED = 4  # batches, where they are still being written
PROGRESS = "progress.json"


@dataclass
class LoopState:
    """How far a training has come: what its checkpoint says beside the weights."""

    step: int = 0
    batches: str = ""  # hash of all row ids so far (triples.chained)
    cut: int = 0  # texts that were longer than the embedder reads, of rank 0's rows
    instructed: bool = False  # whether queries had an instruction before them
    history: list[dict[str, Any]] = field(default_factory=list)


def train_contrastive(training: TrainingPlan, report: Report) -> None:
    """Train and publish the embedder, from its last complete checkpoint on; return at once if it is published.

    Every worker calls this at once. Raises UserError where recipe, data or model are at fault, or where the loss is no
    number.
    """
    settings = _settings(training)
    distributed.prepare_environment(settings)
    disable_progress_bar()
    digest = training.model.ensure_plan(plan.training_identity(training))
    if training.model.manifest() is not None:
        return
    distributed.init_process_group(settings.workers.gpus)
    model = _model(training)
    reader, drawn, steps = read_settings(training, model)
    states = optimised(Encoder(model, settings.precision == "bf16" and not settings.zero), settings, steps)
    with (
        tempfile.TemporaryDirectory(prefix="speed_ray-") as scratch,
        MetricsLog(training.model, Path(scratch, "logs") if distributed.rank() == 0 else None) as metrics,
        Checkpoints(
            training.model, digest, settings.zero, distributed.broadcast(uuid.uuid4().hex[:12])
        ) as checkpoints,
        resume.resumed(training, checkpoints) as checkpoint,
        only_data_is_loaded(settings.zero),
    ):
        progress = _load(Path(checkpoint), states) if checkpoint else LoopState()
        report({"step": progress.step, "steps": steps})
        loop = Loop(training, states, reader, metrics, checkpoints, report, progress, steps, Path(scratch))
        loop.run(drawn)
        if not progress.step:
            raise UserError(
                f"{training.run}/{training.data} filled no batch of {settings.batch} rows (embedder.batch)."
            )
        checkpoints.wait()
        _publish(loop, model, Path(scratch, "model"))
        distributed.barrier()


def _settings(training: TrainingPlan) -> Embedder:
    assert isinstance(training.settings, Embedder)
    return training.settings


def _model(training: TrainingPlan) -> SentenceTransformer:
    """Load the embedder to train, adapters on it, where this worker computes."""
    settings = _settings(training)
    folder = fetch_model_folder(training.base, training.revision, "embedder.model")
    model = encoder.load_encoder(folder, settings.pooling, settings.max_length)
    if settings.lora is not None:
        encoder.adapt(model, settings.lora, training.seed, settings.precision == "bf16")
    if settings.gradient_checkpointing:
        model[0].model.gradient_checkpointing_enable({"use_reentrant": False})
    width = model.get_embedding_dimension()
    if wide := [each for each in settings.dimensions if each > width]:
        raise UserError(
            f"embedder.dimensions: {wide[0]} is more than the {width} of {training.base}. Leave out what is wider."
        )
    model = model.to(distributed.device(settings.workers.gpus)).train()
    encoder.freeze_unused_parameters(model)
    set_seed(training.seed + distributed.rank())  # what dropout draws
    return model


def optimised(network: Encoder, settings: Embedder, steps: int) -> Any:
    """Give the network an optimizer, on every worker alike or shared out among them."""
    if not settings.zero:
        return Replicated(network, settings, steps)
    from speed_ray.training.contrastive.zero3 import Sharded  # brings DeepSpeed, which compiles when it is first used

    return Sharded(network, settings, steps)


def read_settings(training: TrainingPlan, model: SentenceTransformer) -> tuple[Reader, Iterator[WindowBatches], int]:
    """Return what reads rows, the batches to read, and how many steps there are, at most."""
    settings = _settings(training)
    artifact = plan.source(training)
    if settings.follow:
        followed = plan.followed(training)
        corpus = loader.streaming_corpus(artifact, settings.own_negatives_only)
        chosen = streaming.streamed_windows(training.model, artifact, followed, FOLLOWED * settings.batch)
        drawn = shuffle_windows.draw_window_batches(chosen, corpus.families, settings.batch, training.seed)
        steps = max(1, followed.rows // settings.batch)
    else:
        corpus, drawn, steps = _published(training)
    reader = Reader(corpus, encoder.load_tokenizer(model), settings, model.get_max_seq_length() or settings.max_length)
    return reader, drawn, steps


def _published(training: TrainingPlan) -> tuple[Corpus, Iterator[WindowBatches], int]:
    settings = _settings(training)
    corpus, shards = loader.published_corpus(plan.data(training), settings.own_negatives_only)
    families = distributed.broadcast(
        [corpus.families(shard) for shard in range(shards)] if distributed.rank() == 0 else []
    )
    counts = [sum(map(len, members.values())) for members in families]
    steps = plan.count_steps(
        training, sum(counts), "Counted are those that are not held out and have a negative to learn from.\n"
    )
    _check_fills_a_batch(training, families)
    chosen = shuffle_windows.shuffle_windows(counts, WINDOW * settings.batch, training.seed)
    return (
        corpus,
        shuffle_windows.draw_window_batches(chosen, families.__getitem__, settings.batch, training.seed),
        steps,
    )


def _check_fills_a_batch(training: TrainingPlan, families: list[Any]) -> None:
    """Refuse rows of which no batch is ever full: those with unlike numbers of negatives do not meet in one."""
    together: dict[tuple[int, bool], int] = {}
    for members in families:
        for family, rows in members.items():
            key = family.negatives, family.own_negatives_only
            together[key] = together.get(key, 0) + len(rows)
    batch = training.settings.batch
    if max(together.values()) < batch:
        counts = ", ".join(f"{count} with {key[0]}" for key, count in sorted(together.items()))
        raise UserError(
            f"{training.run}/{training.data}: no batch of {batch} rows can be filled. Rows share one only with others "
            f"that have as many negatives: {counts}.\nMake more rows, or lower embedder.batch."
        )


@dataclass
class Loop:
    """One start of a training."""

    training: TrainingPlan
    states: Any
    reader: Reader
    metrics: MetricsLog
    checkpoints: Checkpoints
    report: Report
    progress: LoopState
    steps: int
    scratch: Path

    def run(self, drawn: Iterator[WindowBatches]) -> None:
        """Take every step that is left, with a checkpoint now and then."""
        settings = _settings(self.training)
        if self.progress.step >= self.steps:
            return
        for share in self.reader.shares(drawn, self.progress.step):
            self._step(share)
            done = self.progress.step >= self.steps
            if done or self.progress.step % settings.checkpoint_every == 0:
                self._save()
            if done:
                return

    def _step(self, share: LocalBatch) -> None:
        settings = _settings(self.training)
        objective = ContrastiveConfig(settings.temperature, settings.micro_batch, tuple(settings.dimensions))
        pad = self.reader.tokenizer.pad_token_id
        loss = train_step.train_step(
            self.states.network,
            share.rows,
            share.own_negatives_only,
            objective,
            pad,
            self.states.backward,
            self.states.unsynchronised,
        )
        rate = self.states.schedule.get_last_lr()[0]
        self._check("loss", loss, share)
        norm = self.states.step()
        self._check("gradient norm", norm, share)
        self.progress.step += 1
        self.progress.cut += share.cut
        self.progress.instructed |= share.instructed
        self.progress.batches = loader.hash_chain(self.progress.batches, share.row_ids)
        self._log({"loss": loss, "grad_norm": norm, "learning_rate": rate})

    def _check(self, what: str, value: float, share: LocalBatch) -> None:
        if not torch.isfinite(torch.tensor(value)):
            said = f"the {what} of step {self.progress.step + 1} is {value}"
            raise resume.diverged(self.training, self.checkpoints, said, share.row_ids)

    def _log(self, numbers: dict[str, float]) -> None:
        step = self.progress.step
        if step == 1 or step % max(1, self.steps // LOGGED) == 0:
            logged = {"step": step, **numbers}
            self.metrics.add(logged)
            self.progress.history.append({**logged, "batches": self.progress.batches})
            self.report({**logged, "steps": self.steps})

    def _save(self) -> None:
        folder = self.scratch / f"checkpoint-{self.progress.step}"
        folder.mkdir()
        self.states.save(folder)
        torch.save(_random(), folder / f"random-{distributed.rank()}.pt")
        if distributed.rank() == 0:
            (folder / PROGRESS).write_text(json.dumps(vars(self.progress)))
        self.metrics.upload(self.progress.history)
        self.checkpoints.save(self.progress.step, folder)


def _random() -> dict[str, torch.Tensor]:
    gpu = {"gpu": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {}
    return {"cpu": torch.get_rng_state(), **gpu}


def _load(folder: Path, states: Any) -> LoopState:
    """Go on where a checkpoint was written. Random numbers are those of a rank that there was then."""
    states.load(folder)
    drawn = folder / f"random-{distributed.rank()}.pt"
    if drawn.is_file():
        random = torch.load(drawn, weights_only=True)
        torch.set_rng_state(random["cpu"])
        if "gpu" in random and torch.cuda.is_available():
            torch.cuda.set_rng_state(random["gpu"])
    return LoopState(**json.loads((folder / PROGRESS).read_text()))


def _publish(loop: Loop, model: SentenceTransformer, folder: Path) -> None:
    """Gather the weights on rank 0 and store them as sentence-transformers loads them, with prompts and model card."""
    loop.states.gather()
    if distributed.rank() != 0:
        return
    progress = loop.progress
    encoder.merge(model)
    if progress.instructed:
        model.prompts = {"query": encoder.as_query(encoder.RETRIEVE, ""), "document": ""}
    model.eval().save(str(folder), create_model_card=False)
    loop.metrics.upload(progress.history)
    rows = {
        "batches": progress.batches,
        "steps": progress.step,
        "cut": progress.cut,
        "instructed": progress.instructed,
    }
    facts = model_card.training_facts(loop.training, rows, progress.history)
    (folder / "README.md").write_text(model_card.text(loop.training, facts), encoding="utf-8")
    loop.training.model.publish(folder, facts)
