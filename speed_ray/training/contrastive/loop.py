"""The training loop of the embedder: curated shards -> a published sentence-transformers model, resumed on the way.

The recipe is SPEED's, section 3.4, and that of E5-mistral (arXiv 2401.00368) where SPEED leaves something open. Every
step takes the gradient of the whole global batch (train_step.py), for any number of workers and any micro-batch size.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from transformers import set_seed
from transformers.utils.logging import disable_progress_bar

from speed_ray import kinds
from speed_ray.engines.embedder_folder import check_trainable_folder
from speed_ray.engines.model_folder import fetch_model_folder
from speed_ray.errors import Interrupted, UserError
from speed_ray.recipes.training_settings import Embedder
from speed_ray.storage.trained_models import TUNED
from speed_ray.training import distributed, model_card, plan
from speed_ray.training.checkpoints import LOGGED_STEPS, Checkpoints, MetricsLog, divergence_error, resume_training
from speed_ray.training.contrastive import batches, encoder, judge_scores, loader, logit_spread
from speed_ray.training.contrastive.batch_loss import ContrastiveConfig
from speed_ray.training.contrastive.batches import WindowBatches
from speed_ray.training.contrastive.encoder import Encoder
from speed_ray.training.contrastive.gradcache import RandomState
from speed_ray.training.contrastive.guide import GuideModel
from speed_ray.training.contrastive.held_out import HeldOut, TextEmbedder, read_held_out
from speed_ray.training.contrastive.loader import BatchReader, Corpus, LocalBatch
from speed_ray.training.contrastive.merge import merge_with_base
from speed_ray.training.contrastive.parallel import DdpStrategy, DeepSpeedStrategy
from speed_ray.training.contrastive.train_step import train_step
from speed_ray.training.plan import Report, TrainingPlan

WINDOW_BATCHES = 32  # batches that are shuffled together, at least; the texts of a window are in memory
STREAMED_WINDOW_BATCHES = 4  # the same for rows that are still being written
STATE_FILE = "progress.json"


@dataclass
class LoopState:
    """Progress of a training, saved in each checkpoint as JSON."""

    step: int = 0
    batches: str = ""  # hash of all row ids so far (loader.hash_chain)
    trained: dict[str, int] = field(default_factory=dict)  # rows by kind, each counted once in every epoch
    cut: int = 0  # truncated texts among rank 0's rows
    instructed: bool = False  # a query had an instruction
    history: list[dict[str, Any]] = field(default_factory=list)  # the logged metrics
    held_out: dict[str, float] = field(default_factory=dict)  # mean nDCG@10 on held-out queries, by the scored step

    @property
    def best_step(self) -> int | None:
        """Return the step that did best on held-out queries, of equal ones the first; None where none was scored."""
        return max(map(int, self.held_out), key=lambda step: (self.held_out[str(step)], -step), default=None)


def train_contrastive(training: TrainingPlan, report: Report) -> None:
    """Train the embedder from its last complete checkpoint on, and publish it; do nothing if it is published.

    Every worker calls this at once. Raises UserError where recipe, data or model are at fault, or where the loss
    diverges.
    """
    settings = _settings(training)
    distributed.prepare_environment(settings, training.key)
    disable_progress_bar()
    digest = training.model.ensure_plan(plan.training_identity(training))
    if training.model.manifest() is not None:
        return
    distributed.init_process_group(settings.workers.num_gpus)
    model = _load_embedder(training)
    guide = _load_guide(training)
    reader, windows, steps = make_reader(training, model)
    chooses = settings.load_best_model_at_end or settings.merge is not None
    held_out = read_held_out(training, reader.prompts) if chooses else None
    strategy = make_strategy(Encoder(model, settings.precision == "bf16" and not settings.zero_stage), settings, steps)
    with (
        tempfile.TemporaryDirectory(prefix="speed_ray-") as scratch,
        resume_training(training, digest, scratch) as (metrics, checkpoints, checkpoint),
    ):
        state = _load_state(Path(checkpoint), strategy) if checkpoint else LoopState()
        report({"step": state.step, "steps": steps, **_left_out(reader.corpus)})
        loop = TrainingLoop(
            training, strategy, reader, guide, held_out, metrics, checkpoints, report, state, steps, Path(scratch)
        )
        loop.run(windows)
        if not state.step:
            raise UserError(f"{training.run}/{training.data} has no row to train on.")
        checkpoints.wait()
        _restore_best(loop)
        _publish(loop, model)
        distributed.barrier()


def _settings(training: TrainingPlan) -> Embedder:
    assert isinstance(training.settings, Embedder)
    return training.settings


def _load_embedder(training: TrainingPlan) -> SentenceTransformer:
    """Load the embedder to train on this worker's device, with LoRA adapters where the recipe has them."""
    settings = _settings(training)
    folder = fetch_model_folder(training.base, training.revision, training.base_key)
    check_trainable_folder(folder, settings.pooling)  # one of the hub is seen only now
    model = encoder.load_encoder(folder, settings.pooling, settings.max_length, encoder.trained_dtype(settings))
    # A folder may leave its prompt's tokens out of the pooling. An instruction is a prompt in use, and of another
    # length for each row of a batch: it is pooled, here and in what is published.
    model.set_pooling_include_prompt(True)
    if settings.lora is not None:
        encoder.add_lora(model, settings.lora, training.seed)
    if settings.gradient_checkpointing:
        model[0].model.gradient_checkpointing_enable({"use_reentrant": False})
    width = model.get_embedding_dimension()
    if too_wide := [dimension for dimension in settings.matryoshka_dims if dimension > width]:
        raise UserError(
            f"embedder.matryoshka_dims: {too_wide[0]} is more than the {width} of {training.base}. "
            "Leave out what is wider."
        )
    model = model.to(distributed.device(settings.workers.num_gpus)).train()
    encoder.freeze_unused_parameters(model)
    set_seed(training.seed + distributed.rank())  # dropout differs between workers
    return model


def _load_guide(training: TrainingPlan) -> GuideModel | None:
    """Load the frozen embedder that masks false negatives, on this worker's device."""
    settings = _settings(training)
    if settings.guide is None:
        return None
    model, pooling, key = training.base, settings.pooling, training.base_key
    revision, dtype = training.revision, torch.bfloat16 if settings.precision == "bf16" else torch.float32
    if settings.guide.model is not None:
        model, revision, pooling, key = settings.guide.model, None, None, plan.GUIDE_KEY
    folder = fetch_model_folder(model, revision, key)
    loaded = encoder.load_encoder(folder, pooling, settings.max_length, dtype, key)
    device = distributed.device(settings.workers.num_gpus)
    return GuideModel(loaded.to(device).eval(), settings.guide, settings.micro_batch_size)


def make_strategy(network: Encoder, settings: Embedder, steps: int) -> DdpStrategy | DeepSpeedStrategy:
    """Make optimizer and schedule for an encoder: DistributedDataParallel at ZeRO stage 0, else DeepSpeed."""
    return (DeepSpeedStrategy if settings.zero_stage else DdpStrategy)(network, settings, steps)


def make_reader(
    training: TrainingPlan, model: SentenceTransformer
) -> tuple[BatchReader, Iterator[WindowBatches], int]:
    """Return a reader of the training's rows, the windows of batches to read, and the number of steps, at most."""
    settings = _settings(training)
    size, seed = settings.global_batch_size, training.seed
    judge = judge_scores.read_scale(training)
    if settings.stream:
        artifact, streamed = plan.training_data(training), plan.streamed_plan(training)
        corpus = Corpus(artifact, settings.no_in_batch_negatives, files=None)
        windows = batches.streamed_windows(training.model, artifact, streamed, STREAMED_WINDOW_BATCHES * size)
        drawn = batches.draw_window_batches(windows, corpus.groups, size, seed)
        # At most one smaller batch for each kind, when the synthesis has ended.
        batches_at_most = streamed.rows // size + len(streamed.mix or kinds.kind_names())
        steps = min(batches_at_most, settings.max_steps or batches_at_most)
    else:
        artifact = plan.finished_training_data(training)
        files = [file.path for file in artifact.record_files().values()]
        wanted = (*loader.COLUMNS, loader.FURTHER, *((judge_scores.SCORES,) if judge else ()))
        columns = [name for name in artifact.read(files[0]).column_names if name in wanted]
        corpus = Corpus(artifact, settings.no_in_batch_negatives, files, columns)
        groups = [corpus.groups(shard) for shard in range(len(files))] if distributed.rank() == 0 else []
        groups = distributed.broadcast(groups)
        counts = [sum(map(len, rows.values())) for rows in groups]
        if judge and settings.loss == "kl":
            tables = map(corpus.table, range(len(files)))
            judge = replace(judge, spread=logit_spread.measure_spread(model, tables, settings))
        plan.check_enough_rows(
            training, sum(counts), "Counted are rows that are not held out and have a negative to contrast with.\n"
        )
        steps = plan.count_steps(training, batches.count_batches(groups, size))
        windows = batches.shuffle_windows(counts, WINDOW_BATCHES * size, seed)
        drawn = batches.draw_window_batches(windows, groups.__getitem__, size, seed)
    length = model.get_max_seq_length() or settings.max_length
    has_guide = settings.guide is not None
    reader = BatchReader(corpus, model.tokenizer, length, encoder.folder_prompts(model), judge, has_guide)
    return reader, drawn, steps


@dataclass
class TrainingLoop:
    """Runs the steps of a training from one start to its end or interruption."""

    training: TrainingPlan
    strategy: DdpStrategy | DeepSpeedStrategy
    reader: BatchReader
    guide: GuideModel | None
    held_out: HeldOut | None
    metrics: MetricsLog
    checkpoints: Checkpoints
    report: Report
    state: LoopState
    steps: int
    scratch: Path

    def run(self, windows: Iterator[WindowBatches]) -> None:
        """Take the steps that are left, and save checkpoints."""
        if self.state.step >= self.steps:
            return
        for batch in self.reader.local_batches(windows, self.state.step):
            self._step(batch)
            is_last = self.state.step >= self.steps
            if is_last or self.state.step % self.training.settings.save_steps == 0:
                self._score_held_out()
                self._save()
            if is_last:
                return

    def _step(self, batch: LocalBatch) -> None:
        settings = _settings(self.training)
        loss = train_step(
            self.strategy.network,
            batch.rows,
            batch.no_in_batch_negatives,
            ContrastiveConfig(
                settings.temperature,
                settings.micro_batch_size,
                settings.global_batch_size,
                tuple(settings.matryoshka_dims),
                settings.loss,
                settings.infonce_weight,
            ),
            self.reader.tokenizer.pad_token_id,
            self.strategy.backward,
            self.strategy.no_sync,
            len(batch.row_ids),
            self.guide,
        )
        rate = self.strategy.schedule.get_last_lr()[0]
        self._check_finite("loss", loss, batch)
        norm = self.strategy.step()
        self._check_finite("gradient norm", norm, batch)
        self.state.step += 1
        self.state.trained = dict(sorted((Counter(self.state.trained) + Counter(batch.kinds)).items()))
        self.state.cut += batch.cut
        self.state.instructed |= batch.instructed
        self.state.batches = loader.hash_chain(self.state.batches, batch.row_ids)
        self._log({"loss": loss, "grad_norm": norm, "learning_rate": rate})

    def _check_finite(self, name: str, value: float, batch: LocalBatch) -> None:
        if not torch.isfinite(torch.tensor(value)):
            problem = f"the {name} of step {self.state.step + 1} is {value}"
            raise divergence_error(self.training, self.checkpoints, problem, batch.row_ids)

    def _log(self, metrics: dict[str, float]) -> None:
        step = self.state.step
        if step == 1 or step % max(1, self.steps // LOGGED_STEPS) == 0:
            logged = {"step": step, **metrics}
            self.metrics.add(logged)
            self.state.history.append({**logged, "batches": self.state.batches})
            self.report({**logged, "steps": self.steps})

    def _score_held_out(self) -> None:
        """Score the weights of this step on held-out queries, where the best ones are to be published."""
        settings = _settings(self.training)
        if self.held_out is None or not settings.load_best_model_at_end:
            return
        reader = self.reader
        embed = TextEmbedder(self.strategy.network, reader.tokenizer, reader.max_length, settings.micro_batch_size)
        found = fmean(self.held_out.ndcg_by_query(embed).values())
        self.state.held_out[str(self.state.step)] = found
        logged = {"step": self.state.step, "eval_ndcg_at_10": found}
        self.metrics.add(logged)
        self.state.history.append({**logged, "batches": self.state.batches})
        self.report({**logged, "steps": self.steps})

    def _save(self) -> None:
        folder = self.scratch / f"checkpoint-{self.state.step}"
        folder.mkdir()
        self.strategy.save(folder)
        torch.save(vars(RandomState.capture()), _random_file(folder))
        if distributed.rank() == 0:
            (folder / STATE_FILE).write_text(json.dumps(vars(self.state)))
        self.metrics.upload(self.state.history)
        self.checkpoints.save(self.state.step, folder, self.state.best_step)


def _left_out(corpus: Corpus) -> dict[str, int]:
    """Count the rows that are not trained on, by kind, as reports and published models have them."""
    return {f"left_out/{kind}": count for kind, count in sorted(corpus.excluded.items())}


def _random_file(folder: Path) -> Path:
    return folder / f"random-{distributed.rank()}.pt"


def _load_state(folder: Path, strategy: DdpStrategy | DeepSpeedStrategy) -> LoopState:
    """Restore a checkpoint. A rank that is new since it was written keeps the random states of its own seed."""
    strategy.load(folder)
    if _random_file(folder).is_file():
        RandomState(**torch.load(_random_file(folder), weights_only=True)).restore()
    return LoopState(**json.loads((folder / STATE_FILE).read_text()))


def _restore_best(loop: TrainingLoop) -> None:
    """Load the weights of the step that did best on held-out queries. Raises Interrupted where they are gone."""
    checkpoints, best = loop.checkpoints, distributed.broadcast(loop.state.best_step)
    if best in (None, loop.state.step):
        return
    distributed.barrier()  # every rank's files are uploaded
    for checkpoint in distributed.broadcast(checkpoints.complete() if distributed.rank() == 0 else []):
        if checkpoint.step == best and (folder := checkpoints.restore(checkpoint)):
            loop.strategy.load(folder)
            return
    raise Interrupted(
        f"{checkpoints.where} holds no whole checkpoint of step {best}, which did best on held-out queries.\n"
        "Delete that folder and run the same command again: training begins anew."
    )


def _publish(loop: TrainingLoop, model: SentenceTransformer) -> None:
    """Gather the weights on rank 0 and publish them as sentence-transformers loads them, with prompts and a card.

    Where they are merged with the base's, they are published by themselves too.
    """
    loop.strategy.gather_weights()
    if distributed.rank() != 0:
        return
    training, state, folder = loop.training, loop.state, loop.scratch / "model"
    encoder.merge_lora(model)
    encoder.set_trained_prompts(model, state.instructed)
    encoder.save_encoder(model, folder)
    loop.metrics.upload(state.history)
    rows = _row_facts(loop)
    if _settings(training).merge is None:
        model_card.publish_with_card(training, folder, rows, state.history)
        return
    merged, merged_folder = merge_with_base(training, folder, loop.held_out, state.instructed), loop.scratch / "merged"
    encoder.save_encoder(merged.model, merged_folder)
    tuned = replace(training, name=TUNED)
    model_card.publish_with_card(tuned, folder, rows, state.history, replaces=True)
    rows |= {"instructed": merged.instructed}
    model_card.publish_with_card(training, merged_folder, rows, state.history, merged.facts)


def _row_facts(loop: TrainingLoop) -> dict[str, Any]:
    """Return what a card says of the rows and the steps."""
    state = loop.state
    best = {"best_step": state.best_step} if _settings(loop.training).load_best_model_at_end else {}
    return {
        "batches": state.batches,
        "steps": state.step,
        "trained": state.trained,
        **_left_out(loop.reader.corpus),
        "cut": state.cut,
        "instructed": state.instructed,
        **best,
    }
