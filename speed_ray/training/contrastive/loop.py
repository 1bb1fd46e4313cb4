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
from speed_ray.training import distributed, model_card, plan
from speed_ray.training.checkpoints import (
    LOGGED_STEPS,
    Checkpoints,
    MetricsLog,
    divergence_error,
    latest_checkpoint,
    weights_only_loading,
)
from speed_ray.training.contrastive import batches, encoder, loader, parallel, train_step
from speed_ray.training.contrastive.batches import WindowBatches
from speed_ray.training.contrastive.encoder import Encoder
from speed_ray.training.contrastive.loader import BatchReader, Corpus, LocalBatch
from speed_ray.training.contrastive.train_step import ContrastiveConfig
from speed_ray.training.plan import Report, TrainingPlan

WINDOW_BATCHES = 32  # batches that are drawn together, at least; a window's texts are in memory
STREAMED_WINDOW_BATCHES = 4  # batches, where they are still being written
STATE_FILE = "progress.json"


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
    model = _load_embedder(training)
    reader, drawn, steps = make_reader(training, model)
    states = make_strategy(Encoder(model, settings.precision == "bf16" and not settings.zero), settings, steps)
    with (
        tempfile.TemporaryDirectory(prefix="speed_ray-") as scratch,
        MetricsLog(training.model, Path(scratch, "logs") if distributed.rank() == 0 else None) as metrics,
        Checkpoints(
            training.model, digest, settings.zero, distributed.broadcast(uuid.uuid4().hex[:12])
        ) as checkpoints,
        latest_checkpoint(training, checkpoints) as checkpoint,
        weights_only_loading(settings.zero),
    ):
        progress = _load(Path(checkpoint), states) if checkpoint else LoopState()
        report({"step": progress.step, "steps": steps})
        loop = TrainingLoop(training, states, reader, metrics, checkpoints, report, progress, steps, Path(scratch))
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


def _load_embedder(training: TrainingPlan) -> SentenceTransformer:
    """Load the embedder to train, adapters on it, where this worker computes."""
    settings = _settings(training)
    folder = fetch_model_folder(training.base, training.revision, "embedder.model")
    model = encoder.load_encoder(folder, settings.pooling, settings.max_length)
    if settings.lora is not None:
        encoder.add_lora(model, settings.lora, training.seed, settings.precision == "bf16")
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


def make_strategy(network: Encoder, settings: Embedder, steps: int) -> Any:
    """Give the network an optimizer, on every worker alike or shared out among them."""
    if not settings.zero:
        return parallel.DdpStrategy(network, settings, steps)
    return parallel.DeepSpeedStrategy(network, settings, steps)


def make_reader(
    training: TrainingPlan, model: SentenceTransformer
) -> tuple[BatchReader, Iterator[WindowBatches], int]:
    """Return what reads rows, the batches to read, and how many steps there are, at most."""
    settings = _settings(training)
    artifact = plan.training_data(training)
    if settings.follow:
        followed = plan.streamed_plan(training)
        corpus = loader.streaming_corpus(artifact, settings.own_negatives_only)
        chosen = batches.streamed_windows(training.model, artifact, followed, STREAMED_WINDOW_BATCHES * settings.batch)
        drawn = batches.draw_window_batches(chosen, corpus.families, settings.batch, training.seed)
        steps = max(1, followed.rows // settings.batch)
    else:
        corpus, drawn, steps = _published(training)
    reader = BatchReader(
        corpus, encoder.load_tokenizer(model), settings, model.get_max_seq_length() or settings.max_length
    )
    return reader, drawn, steps


def _published(training: TrainingPlan) -> tuple[Corpus, Iterator[WindowBatches], int]:
    settings = _settings(training)
    corpus, shards = loader.published_corpus(plan.finished_training_data(training), settings.own_negatives_only)
    families = distributed.broadcast(
        [corpus.families(shard) for shard in range(shards)] if distributed.rank() == 0 else []
    )
    counts = [sum(map(len, members.values())) for members in families]
    steps = plan.count_steps(
        training, sum(counts), "Counted are those that are not held out and have a negative to learn from.\n"
    )
    _check_fills_a_batch(training, families)
    chosen = batches.shuffle_windows(counts, WINDOW_BATCHES * settings.batch, training.seed)
    return (
        corpus,
        batches.draw_window_batches(chosen, families.__getitem__, settings.batch, training.seed),
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
class TrainingLoop:
    """One start of a training."""

    training: TrainingPlan
    states: Any
    reader: BatchReader
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
            raise divergence_error(self.training, self.checkpoints, said, share.row_ids)

    def _log(self, numbers: dict[str, float]) -> None:
        step = self.progress.step
        if step == 1 or step % max(1, self.steps // LOGGED_STEPS) == 0:
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
            (folder / STATE_FILE).write_text(json.dumps(vars(self.progress)))
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
    return LoopState(**json.loads((folder / STATE_FILE).read_text()))


def _publish(loop: TrainingLoop, model: SentenceTransformer, folder: Path) -> None:
    """Gather the weights on rank 0 and store them as sentence-transformers loads them, with prompts and model card."""
    loop.states.gather()
    if distributed.rank() != 0:
        return
    progress = loop.progress
    encoder.merge_lora(model)
    if progress.instructed:
        model.prompts = {"query": encoder.format_query(encoder.DEFAULT_INSTRUCTION, ""), "document": ""}
    model.eval().save(str(folder), create_model_card=False)
    loop.metrics.upload(progress.history)
    rows = {
        "batches": progress.batches,
        "steps": progress.step,
        "cut": progress.cut,
        "instructed": progress.instructed,
    }
    facts = model_card.published_facts(loop.training, rows, progress.history)
    (folder / "README.md").write_text(model_card.render_model_card(loop.training, facts), encoding="utf-8")
    loop.training.model.publish(folder, facts)
