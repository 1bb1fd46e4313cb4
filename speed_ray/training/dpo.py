"""Direct preference optimisation (DPO): trains the model to prefer the chosen of two replies to a prompt.

Losses are TRL's, a mean over the pairs of the global batch: `sigmoid` is DPO's own (Rafailov et al., arXiv 2305.18290,
equation 7), `ipo` (arXiv 2310.12036) uses mean log-probabilities of tokens. With label smoothing `e`, `sigmoid` is the
conservative loss `(1 - e) L(x) + e L(-x)` of DPO's authors. The reference policy is the model that training begins
with; its log-probabilities are computed once (reference_logps.py).
"""

from typing import Any

from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from speed_ray.recipes.training_settings import Dpo
from speed_ray.training import load_model, reference_logps
from speed_ray.training.plan import TrainingPlan
from speed_ray.training.tokenize import TokenizedRow
from speed_ray.training.trainer_mixin import TrainerInputs, TrainerMixin


class DpoTrainer(TrainerMixin, DPOTrainer):
    """Trains with TRL on rows that are tokenized already, with reference log-probabilities computed before."""

    def _prepare_dataset(self, dataset: Dataset, *args: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, *args: Any) -> Dataset:
        return dataset  # TRL's own is written by rank 0 to a local file that every other node then looks for


def loss_arguments(training: TrainingPlan) -> dict[str, Any]:
    """Return the recipe's loss as arguments of TRL's DPOConfig.

    TRL 1.16 silently ignores `label_smoothing` for `sigmoid`. Its `robust` is ((1 - e) L(x) - e L(-x)) /
    (1 - 2e), so the smoothed sigmoid is 2 (1 - e) of the plain one less (1 - 2e) of `robust`.
    """
    settings = training.settings
    assert isinstance(settings, Dpo)
    smoothing, kind = settings.label_smoothing, settings.loss_type
    if smoothing and kind == "sigmoid":
        weights = [2 * (1 - smoothing), -(1 - 2 * smoothing)]
        return {"loss_type": ["sigmoid", "robust"], "loss_weights": weights, "label_smoothing": smoothing}
    return {"loss_type": [kind], "label_smoothing": smoothing}


def make_trainer(inputs: TrainerInputs) -> DpoTrainer:
    """Make TRL's DPO trainer with reference log-probabilities, and check its masks on the first micro-batch."""
    settings = inputs.training.settings
    assert isinstance(settings, Dpo)
    arguments = DPOConfig(
        **inputs.arguments,
        **loss_arguments(inputs.training),
        beta=settings.beta,
        # Without LoRA, TRL would load a second model unless told that it need not. With it, it would only hash all.
        precompute_ref_log_probs=settings.lora is None,
    )
    trainer = DpoTrainer(
        model=load_model.load_network(inputs.training, bool(settings.zero_stage)),
        args=arguments,
        train_dataset=_dataset(inputs.ordered_rows),
        eval_dataset=_dataset(inputs.rows.held_out) if inputs.rows.held_out else None,
        processing_class=inputs.tokenizer,
    )
    if settings.lora is not None and "ref" in trainer.model.peft_config:
        trainer.model.delete_adapter("ref")  # TRL's copy of the adapter before training
    _check_masks(trainer, inputs.ordered_rows[: settings.micro_batch_size], inputs.tokenizer.eos_token_id)
    rows = inputs.rows.train + inputs.rows.held_out
    log_probs = reference_logps.reference_log_probabilities(inputs.training, trainer, rows)
    trainer.train_dataset = _add_reference(trainer.train_dataset, inputs.ordered_rows, log_probs)
    if trainer.eval_dataset is not None:
        trainer.eval_dataset = _add_reference(trainer.eval_dataset, inputs.rows.held_out, log_probs)
    trainer.precompute_ref_logps = True
    return trainer


def _dataset(rows: list[TokenizedRow]) -> Dataset:
    columns = ("prompt_ids", "chosen_ids", "rejected_ids")
    return Dataset.from_dict({name: [row[name] for row in rows] for name in columns})


def _add_reference(
    dataset: Dataset, rows: list[TokenizedRow], log_probs: dict[str, reference_logps.LogProbPair]
) -> Dataset:
    for half, name in enumerate(("ref_chosen_logps", "ref_rejected_logps")):
        dataset = dataset.add_column(name, [log_probs[row["row_id"]][half] for row in rows])
    return dataset


def _check_masks(trainer: DpoTrainer, rows: list[TokenizedRow], end: int) -> None:
    """Assert on a collated batch that the loss is on whole replies with their end token, and on nothing else."""
    batch: dict[str, Any] = trainer.data_collator(rows)
    for half, name in enumerate(("chosen_ids", "rejected_ids")):
        for index, row in enumerate(rows, start=half * len(rows)):
            ids, real = batch["input_ids"][index], batch["attention_mask"][index].bool()
            has_loss = batch["completion_mask"][index].bool()
            assert row["prompt_ids"], "a prompt is empty"
            assert ids[real].tolist() == row["prompt_ids"] + row[name], "the batch holds other tokens than its rows"
            assert ids[has_loss].tolist() == row[name], "the loss is not on the reply alone"
            assert row[name][-1] == end, "a reply lacks its end token"
            assert not (has_loss & ~real).any(), "padding has a loss"
