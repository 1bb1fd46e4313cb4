"""Supervised fine-tuning (SFT): trains the model to write the reply to a prompt.

The loss is cross-entropy over the reply's tokens alone: a mean over all reply tokens of the global batch, however many
workers share it. Packing concatenates a worker's rows without padding, and attention stays within a row; it changes
the speed and no loss.
"""

from typing import Any

import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from speed_ray.recipes.training_settings import Sft
from speed_ray.training import load_model
from speed_ray.training.tokenize import TokenizedRow
from speed_ray.training.trainer_mixin import TrainerInputs, TrainerMixin

IGNORED = -100  # the label of a token without a loss, as in torch.nn.CrossEntropyLoss


class SftTrainer(TrainerMixin, SFTTrainer):
    """Trains with TRL on rows that are tokenized already."""


def make_trainer(inputs: TrainerInputs) -> SftTrainer:
    """Make TRL's SFT trainer from the recipe's settings, and check its labels on the first micro-batch."""
    settings = inputs.training.settings
    assert isinstance(settings, Sft)
    arguments = SFTConfig(
        **inputs.arguments, padding_free=settings.packing, dataset_kwargs={"skip_prepare_dataset": True}
    )
    trainer = SftTrainer(
        model=load_model.load_network(inputs.training, bool(settings.zero_stage)),
        args=arguments,
        train_dataset=_dataset(inputs.ordered_rows),
        eval_dataset=_dataset(inputs.rows.held_out) if inputs.rows.held_out else None,
        processing_class=inputs.tokenizer,
    )
    _check_labels(trainer, inputs.ordered_rows[: settings.micro_batch_size], inputs.tokenizer.eos_token_id)
    return trainer


def _dataset(rows: list[TokenizedRow]) -> Dataset:
    return Dataset.from_dict(
        {
            "input_ids": [row["prompt_ids"] + row["reply_ids"] for row in rows],
            "labels": [[IGNORED] * len(row["prompt_ids"]) + row["reply_ids"] for row in rows],
        }
    )


def _check_labels(trainer: SftTrainer, rows: list[TokenizedRow], end: int) -> None:
    """Assert on a collated batch that the loss is on whole replies with their end token, and on nothing else."""
    batch: dict[str, Any] = trainer.data_collator([trainer.train_dataset[i] for i in range(len(rows))])
    real = batch["attention_mask"].bool() if "attention_mask" in batch else torch.ones_like(batch["labels"]).bool()
    ids = [token for row in rows for token in row["prompt_ids"] + row["reply_ids"]]
    labels = [label for row in rows for label in [IGNORED] * len(row["prompt_ids"]) + row["reply_ids"]]
    assert batch["input_ids"][real].tolist() == ids, "the batch holds other tokens than its rows"
    assert batch["labels"][real].tolist() == labels, "the loss is not on the replies alone"
    assert (batch["labels"][~real] == IGNORED).all(), "padding has a loss"
    assert all(row["prompt_ids"] and row["reply_ids"][-1] == end for row in rows), "a reply lacks its end token"
