"""Direct preference optimisation: of two replies to a prompt the model learns to prefer the chosen one.

Losses are TRL's: `sigmoid` is DPO's own (https://arxiv.org/abs/2305.18290, equation 7), `ipo` is taken over mean
log-probabilities of tokens. With a share `e` of label smoothing `sigmoid` is the conservative loss of the same
authors, `(1 - e) L(x) + e L(-x)`. The reference is the model that training begins with (reference.py).
"""

from typing import Any

from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from speed_ray.recipes.schema import Dpo
from speed_ray.records import Row
from speed_ray.training import load_model, reference_logps, trl_trainer
from speed_ray.training.plan import Report, TrainingPlan
from speed_ray.training.trl_trainer import TrainerInputs, TrainerMixin


class DpoTrainerMixin(TrainerMixin, DPOTrainer):
    """TRL's trainer, on rows that are token ids already, with a reference that was computed already."""

    def _prepare_dataset(self, dataset: Dataset, *args: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, *args: Any) -> Dataset:
        return dataset  # TRL's own is written by rank 0 to a local file that every other node then looks for


def train_dpo(training: TrainingPlan, report: Report) -> None:
    """Train and publish on one worker of many (see loop.train)."""
    trl_trainer.train_with_trl(training, report, _trainer)


def loss_arguments(training: TrainingPlan) -> dict[str, Any]:
    """The recipe's loss in TRL's words.

    TRL 1.16 leaves `label_smoothing` out of `sigmoid` without a word. Its `robust` is ((1 - e) L(x) - e L(-x)) /
    (1 - 2e), so the smoothed sigmoid is 2 (1 - e) of the plain one less (1 - 2e) of `robust`.
    """
    settings = training.settings
    assert isinstance(settings, Dpo)
    smoothing, kind = settings.label_smoothing, settings.loss_type
    if smoothing and kind == "sigmoid":
        weights = [2 * (1 - smoothing), -(1 - 2 * smoothing)]
        return {"loss_type": ["sigmoid", "robust"], "loss_weights": weights, "label_smoothing": smoothing}
    return {"loss_type": [kind], "label_smoothing": smoothing}


def _trainer(work: TrainerInputs) -> DpoTrainerMixin:
    settings = work.training.settings
    assert isinstance(settings, Dpo)
    arguments = DPOConfig(
        **work.arguments,
        **loss_arguments(work.training),
        beta=settings.beta,
        # Without LoRA, TRL would load a second model unless told that it need not. With it, it would only hash all.
        precompute_ref_log_probs=settings.lora is None,
    )
    trainer = DpoTrainerMixin(
        model=load_model.load_network(work.training, bool(settings.zero)),
        args=arguments,
        train_dataset=_dataset(work.ordered),
        eval_dataset=_dataset(work.rows.held_out) if work.rows.held_out else None,
        processing_class=work.tokenizer,
    )
    if settings.lora is not None and "ref" in trainer.model.peft_config:
        trainer.model.delete_adapter("ref")  # TRL's copy of the adapter as it was
    _check(trainer, work.ordered[: settings.micro_batch], work.tokenizer.eos_token_id)
    known = reference_logps.reference_log_probabilities(work.training, trainer, work.rows.trained + work.rows.held_out)
    trainer.train_dataset = _with_reference(trainer.train_dataset, work.ordered, known)
    if trainer.eval_dataset is not None:
        trainer.eval_dataset = _with_reference(trainer.eval_dataset, work.rows.held_out, known)
    trainer.precompute_ref_logps = True
    return trainer


def _dataset(rows: list[Row]) -> Dataset:
    columns = ("prompt_ids", "chosen_ids", "rejected_ids")
    return Dataset.from_dict({name: [row[name] for row in rows] for name in columns})


def _with_reference(dataset: Dataset, rows: list[Row], known: dict[str, reference_logps.LogProbPair]) -> Dataset:
    for place, name in enumerate(("ref_chosen_logps", "ref_rejected_logps")):
        dataset = dataset.add_column(name, [known[row["row_id"]][place] for row in rows])
    return dataset


def _check(trainer: DpoTrainerMixin, rows: list[Row], end: int) -> None:
    """Assert on a real batch that prompts are whole and unlearnt, that replies are learnt and end, and no more."""
    batch: dict[str, Any] = trainer.data_collator(rows)
    for half, name in enumerate(("chosen_ids", "rejected_ids")):
        for place, row in enumerate(rows, start=half * len(rows)):
            real = batch["attention_mask"][place].bool()
            learnt = batch["completion_mask"][place].bool()
            assert row["prompt_ids"], "a prompt is empty"
            assert batch["input_ids"][place][real].tolist() == row["prompt_ids"] + row[name], (
                "other tokens than its row"
            )
            assert batch["input_ids"][place][learnt].tolist() == row[name], "the loss is not on the reply alone"
            assert row[name][-1] == end, "a reply does not end"
            assert not (learnt & ~real).any(), "padding is learnt"
