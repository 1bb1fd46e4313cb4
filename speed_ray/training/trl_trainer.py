"""What SFT and DPO have in common, on one worker of many: from the plan to the published model, resumed on the way.

Runs wherever a launcher set torch.distributed's variables (torchrun, Ray Train), or alone. Parallelism is DeepSpeed's
from ZeRO stage 1 on and PyTorch's own data parallelism at stage 0, whose checkpoints any number of workers can load.
"""

import json
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import SequentialSampler
from transformers import PreTrainedTokenizerBase, PrinterCallback, Trainer
from transformers.utils.logging import disable_progress_bar

from speed_ray.errors import UserError
from speed_ray.recipes.schema import Dpo, Embedder, Sft
from speed_ray.training import distributed, load_model, model_card, plan, tokenize
from speed_ray.training.checkpoints import (
    LOGGED_STEPS,
    Checkpoints,
    MetricsLog,
    divergence_error,
    latest_checkpoint,
    weights_only_loading,
)
from speed_ray.training.plan import Report, TrainingPlan
from speed_ray.training.tokenize import TokenizedRows

EVALUATIONS = 10


@dataclass(frozen=True)
class TrainerInputs:
    """What a method makes its trainer from: `order` holds the places in `rows.trained`, `batch` for each step."""

    training: TrainingPlan
    arguments: dict[str, Any]  # of transformers.TrainingArguments
    tokenizer: PreTrainedTokenizerBase
    rows: TokenizedRows
    order: list[int]

    @property
    def ordered(self) -> list[dict[str, Any]]:
        """The rows to train on, in the order of training."""
        return [self.rows.trained[place] for place in self.order]


class TrainerMixin(Trainer):
    """Mixed into TRL's trainers: our order, our checkpoints, our reports, and an end to a run that diverged."""

    work: TrainerInputs
    checkpoints: Checkpoints
    metrics: MetricsLog
    report: Report
    _total_train_tokens: int  # TRL's

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(train_dataset or self.train_dataset)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        self._total_train_tokens = max(self._total_train_tokens, self.state.num_input_tokens_seen)  # before a resume
        loss = super().training_step(*args, **kwargs)
        if not torch.isfinite(loss):
            raise self._diverged("loss", float(loss), self.state.global_step)
        return loss

    def _maybe_log_save_evaluate(self, tr_loss: Any, grad_norm: Any, *args: Any, **kwargs: Any) -> None:
        if grad_norm is not None and not torch.isfinite(torch.as_tensor(grad_norm)):
            raise self._diverged("gradient norm", float(grad_norm), self.state.global_step - 1)
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, *args, **kwargs)

    def _diverged(self, what: str, value: float, step: int) -> UserError:
        batch = self.work.training.settings.batch
        ids = [row["row_id"] for row in self.work.ordered[step * batch : (step + 1) * batch]]
        return divergence_error(self.work.training, self.checkpoints, f"the {what} of step {step + 1} is {value}", ids)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        logs.pop("train_loss", None)  # a mean over the steps of this start alone
        super().log(logs, start_time)
        logged = self.state.log_history[-1]
        self.metrics.add(logged)
        self.report({**logged, "steps": self.state.max_steps})

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self.state.num_input_tokens_seen = self._total_train_tokens  # TRL keeps its count in memory alone
        super()._save_checkpoint(model, trial)
        self.metrics.upload(self.state.log_history)
        step = self.state.global_step
        self.checkpoints.save(step, Path(self.args.output_dir) / f"checkpoint-{step}")

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        if not (_internal_call and self.is_deepspeed_enabled):  # DeepSpeed's own checkpoint holds the weights
            super().save_model(output_dir, _internal_call)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write none: ours goes with the published model (card.py)."""

    def _send_telemetry(self) -> None:
        """Send none: a training says nothing about itself to anybody."""


def train_with_trl(training: TrainingPlan, report: Report, make: Callable[[TrainerInputs], TrainerMixin]) -> None:
    """Train and publish a model, from its last complete checkpoint on; return at once if it is published.

    Every worker calls this at once, and `report` is called on each equally often. Raises UserError where recipe, data
    or model are at fault, or where the loss is no number.
    """
    settings = training.settings
    assert not isinstance(settings, Embedder)
    distributed.prepare_environment(settings)
    disable_progress_bar()
    digest = training.model.ensure_plan(plan.training_identity(training))
    if training.model.manifest() is not None:
        return
    tokenizer = load_model.load_chat_tokenizer(training)
    read = tokenize.tokenize_rows(training, tokenizer, load_model.context_length(training))
    steps = tokenize.total_steps(training, read)
    with tempfile.TemporaryDirectory(prefix="speed_ray-") as scratch:
        work = TrainerInputs(
            training=training,
            arguments=_arguments(settings, steps, bool(read.held_out), training.seed, scratch),
            tokenizer=tokenizer,
            rows=read,
            order=_order(training, read, steps),
        )
        trainer = make(work)
        trainer.work, trainer.report = work, report
        trainer.remove_callback(PrinterCallback)  # `report` says it
        attempt = distributed.broadcast(uuid.uuid4().hex[:12])
        with (
            MetricsLog(training.model, Path(scratch, "logs") if distributed.rank() == 0 else None) as trainer.metrics,
            Checkpoints(training.model, digest, settings.zero, attempt) as trainer.checkpoints,
            latest_checkpoint(training, trainer.checkpoints) as checkpoint,
            weights_only_loading(settings.zero),
        ):
            report({"step": 0, "steps": steps, **read.facts()})
            trainer.args.eval_on_start = bool(read.held_out) and checkpoint is None
            trainer.train(resume_from_checkpoint=checkpoint)
            trainer.checkpoints.wait()
            _publish(trainer, Path(scratch, "model"))
            distributed.barrier()


def _order(training: TrainingPlan, read: TokenizedRows, steps: int) -> list[int]:
    settings = training.settings
    places = tokenize.shuffled_order(len(read.trained), steps * settings.batch, training.seed)
    packed = isinstance(settings, Sft) and settings.packing  # needs no padding
    return places if packed else tokenize.sort_by_length_within_batch(places, read.trained, settings.batch)


def _arguments(settings: Sft | Dpo, steps: int, evaluates: bool, seed: int, folder: str) -> dict[str, Any]:
    """The recipe in the words of transformers.TrainingArguments."""
    micro_batch = plan.per_device_batch_size(settings, distributed.world_size())
    accumulated = settings.batch // (distributed.world_size() * micro_batch)
    return {
        "output_dir": folder,
        "max_steps": steps,
        "per_device_train_batch_size": micro_batch,
        "per_device_eval_batch_size": micro_batch,
        "gradient_accumulation_steps": accumulated,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": settings.schedule,
        "warmup_steps": round(settings.warmup * steps),
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.clip,
        "bf16": settings.precision == "bf16",
        "gradient_checkpointing": settings.gradient_checkpointing,
        "use_cpu": not settings.workers.gpus,
        "deepspeed": distributed.deepspeed_config(settings, micro_batch, accumulated) if settings.zero else None,
        "ddp_find_unused_parameters": False,
        "max_length": None,  # rows.py has left out what does not fit
        "logging_steps": max(1, steps // LOGGED_STEPS),
        "logging_first_step": True,
        "logging_nan_inf_filter": False,  # it would write the last good loss in place of a NaN
        "eval_strategy": "steps" if evaluates else "no",
        "eval_steps": max(1, steps // EVALUATIONS),
        "save_strategy": "steps",
        "save_steps": settings.checkpoint_every,
        "seed": seed,
        "report_to": "none",
        "disable_tqdm": True,
    }


def _publish(trainer: TrainerMixin, folder: Path) -> None:
    """Gather the weights on rank 0 and store them with tokenizer, chat template and model card."""
    training = trainer.work.training
    if training.settings.lora is None and training.settings.precision == "bf16":
        trainer.model.to(torch.bfloat16)
    trainer.save_model(str(folder))
    if distributed.rank() == 0:
        (folder / "training_args.bin").unlink()  # pickle
        if training.settings.lora is not None:
            _normalize_adapter_config(training, folder / "adapter_config.json")
        trainer.metrics.upload(trainer.state.log_history)
        facts = model_card.published_facts(training, trainer.work.rows.facts(), trainer.state.log_history)
        (folder / "README.md").write_text(model_card.render_model_card(training, facts), encoding="utf-8")
        training.model.publish(folder, facts)


def _normalize_adapter_config(training: TrainingPlan, file: Path) -> None:
    """Write in an adapter's config what is the same anywhere: PEFT has its modules in an order of this process alone,
    and what it was put on as the path of this machine's copy.

    A model of the same run is named by its place there, with "./" because "junior" alone would be a name of the hub's.
    """
    config, whole = json.loads(file.read_text(encoding="utf-8")), training.whole
    config["base_model_name_or_path"] = f"./{whole.path}" if whole else training.base
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
