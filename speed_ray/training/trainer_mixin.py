"""Extend TRL's trainers: our order of rows, checkpoints and reports, and an error where a loss diverges."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import SequentialSampler
from transformers import PreTrainedTokenizerBase, Trainer

from speed_ray.errors import UserError
from speed_ray.training.checkpoints import Checkpoints, MetricsLog, divergence_error
from speed_ray.training.plan import Report, TrainingPlan
from speed_ray.training.tokenize import TokenizedRows


@dataclass(frozen=True)
class TrainerInputs:
    """Inputs of a TRL trainer. `order` holds indices into `rows.train`, a global batch for each step."""

    training: TrainingPlan
    arguments: dict[str, Any]  # of transformers.TrainingArguments
    tokenizer: PreTrainedTokenizerBase
    rows: TokenizedRows
    order: list[int]

    @property
    def ordered_rows(self) -> list[dict[str, Any]]:
        """The rows to train on, in the order of training; a row comes once in each epoch."""
        return [self.rows.train[index] for index in self.order]


class TrainerMixin(Trainer):
    """Overrides what TRL's trainers do with row order, checkpoints, reports and losses that are no number."""

    trainer_inputs: TrainerInputs
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
            raise self._divergence_error("loss", float(loss), self.state.global_step)
        return loss

    def _maybe_log_save_evaluate(self, tr_loss: Any, grad_norm: Any, *args: Any, **kwargs: Any) -> None:
        if grad_norm is not None and not torch.isfinite(torch.as_tensor(grad_norm)):
            raise self._divergence_error("gradient norm", float(grad_norm), self.state.global_step - 1)
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, *args, **kwargs)

    def _divergence_error(self, name: str, value: float, step: int) -> UserError:
        training, batch = self.trainer_inputs.training, self.trainer_inputs.training.settings.global_batch_size
        ids = [row["row_id"] for row in self.trainer_inputs.ordered_rows[step * batch : (step + 1) * batch]]
        return divergence_error(training, self.checkpoints, f"the {name} of step {step + 1} is {value}", ids)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        logs.pop("train_loss", None)  # a mean over the steps since the last resume alone
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
        """Write no model card: ours is published with the weights (model_card.py)."""

    def _send_telemetry(self) -> None:
        """Send no telemetry."""
