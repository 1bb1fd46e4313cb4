"""Supervised fine-tuning: the model learns to write the reply to a prompt. The loss is on the reply's tokens alone.

A step is `batch` rows, and its loss the mean over all their reply tokens, however many workers share them and however
they are laid out: packing puts a worker's rows end to end without padding, each seeing only itself, and changes no
number but the seconds.
"""

from typing import Any

import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from speed_ray.recipes.schema import Sft
from speed_ray.records import Row
from speed_ray.training import load_model, trl_trainer
from speed_ray.training.plan import Report, TrainingPlan
from speed_ray.training.trl_trainer import TrainerInputs, TrainerMixin

IGNORED = -100  # a label that counts for no loss


class SftTrainerMixin(TrainerMixin, SFTTrainer):
    """TRL's trainer, on rows that are token ids already."""


def train_sft(training: TrainingPlan, report: Report) -> None:
    """Train and publish on one worker of many (see loop.train)."""
    trl_trainer.train_with_trl(training, report, _trainer)


def _trainer(work: TrainerInputs) -> SftTrainerMixin:
    settings = work.training.settings
    assert isinstance(settings, Sft)
    arguments = SFTConfig(
        **work.arguments, padding_free=settings.packing, dataset_kwargs={"skip_prepare_dataset": True}
    )
    trainer = SftTrainerMixin(
        model=load_model.load_network(work.training, bool(settings.zero)),
        args=arguments,
        train_dataset=_dataset(work.ordered),
        eval_dataset=_dataset(work.rows.held_out) if work.rows.held_out else None,
        processing_class=work.tokenizer,
    )
    _check(trainer, work.ordered[: settings.micro_batch], work.tokenizer.eos_token_id)
    return trainer


def _dataset(rows: list[Row]) -> Dataset:
    return Dataset.from_dict(
        {
            "input_ids": [row["prompt_ids"] + row["reply_ids"] for row in rows],
            "labels": [[IGNORED] * len(row["prompt_ids"]) + row["reply_ids"] for row in rows],
        }
    )


def _check(trainer: SftTrainerMixin, rows: list[Row], end: int) -> None:
    """Assert on a real batch that the prompts are whole and unlearnt, that replies are learnt and end, and no more."""
    batch: dict[str, Any] = trainer.data_collator([trainer.train_dataset[i] for i in range(len(rows))])
    real = batch["attention_mask"].bool() if "attention_mask" in batch else torch.ones_like(batch["labels"]).bool()
    ids = [token for row in rows for token in row["prompt_ids"] + row["reply_ids"]]
    labels = [label for row in rows for label in [IGNORED] * len(row["prompt_ids"]) + row["reply_ids"]]
    assert batch["input_ids"][real].tolist() == ids, "the batch holds other tokens than its rows"
    assert batch["labels"][real].tolist() == labels, "the loss is not on the replies alone"
    assert (batch["labels"][~real] == IGNORED).all(), "padding is learnt"
    assert all(row["prompt_ids"] and row["reply_ids"][-1] == end for row in rows), "a reply does not end"
