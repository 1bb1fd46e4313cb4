"""Bare TRL on the pairs of a run: DPOTrainer, the senior's settings, the same batches, nothing checked or stored.

    python -m benchmarks.rival_trl RUN '["senior.max_steps=60", ...]' precomputed|recomputed

What the reference gives each reply is precomputed by TRL before the first step, or computed anew at every step.
"""

import json
import sys
import tempfile
import time
from typing import Any

from datasets import Dataset
from peft import PeftModel
from transformers import AutoModelForCausalLM, TrainerCallback
from trl import DPOConfig, DPOTrainer

from benchmarks.training import FROM, rate
from speed_ray import recipes
from speed_ray.engines.model_folder import ensure_model_folder
from speed_ray.recipes.training_settings import Dpo
from speed_ray.storage.run import Run
from speed_ray.storage.trained_models import Model
from speed_ray.training import load_model, plan, tokenize
from speed_ray.training.plan import TrainingPlan


class Clock(TrainerCallback):
    """Notes when each step was logged, as our own trainer's TensorBoard files do, and the last loss."""

    def __init__(self) -> None:
        self.points: list[tuple[int, float]] = []
        self.loss = 0.0

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        if "loss" in logs and state.global_step >= FROM:
            self.points.append((state.global_step, time.time()))
            self.loss = logs["loss"]


def main() -> None:
    training = plan.plan_senior(Run(sys.argv[1]), recipes.load_recipe("miniature", json.loads(sys.argv[2])))
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer(training, folder, sys.argv[3] == "precomputed", clock).train()
    contender = f"bare TRL, reference {sys.argv[3]}"
    print(json.dumps({"contender": contender, "steps/s": rate(clock.points), "last loss": clock.loss}))


def trainer(training: TrainingPlan, folder: str, precomputed: bool, clock: Clock) -> DPOTrainer:
    """TRL as its documentation has it; what it is given is what speed_ray/training/trl_trainer.py gives it."""
    settings, tokenizer = training.settings, load_model.load_chat_tokenizer(training)
    assert isinstance(settings, Dpo)
    read = tokenize.tokenize_rows(training, tokenizer, load_model.context_length(training)).train
    steps = plan.count_steps(training, len(read) / training.settings.global_batch_size)
    places = tokenize.sort_by_length_within_batch(
        tokenize.shuffled_order(len(read), steps * settings.global_batch_size, training.seed),
        read,
        settings.global_batch_size,
    )  # as ours: like is compared with like
    order = [read[place]["row_id"] for place in places]
    base = AutoModelForCausalLM.from_pretrained(ensure_model_folder(training.base))
    junior = Model(Run(training.run), str(training.start)).fetch()
    return DPOTrainer(
        model=PeftModel.from_pretrained(base, junior, is_trainable=True),
        args=DPOConfig(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=settings.micro_batch_size,
            gradient_accumulation_steps=settings.global_batch_size // settings.micro_batch_size,
            learning_rate=settings.learning_rate,
            lr_scheduler_type=settings.lr_scheduler_type,
            warmup_steps=round(settings.warmup_ratio * steps),
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
            beta=settings.beta,
            precompute_ref_log_probs=precomputed,
            train_sampling_strategy="sequential",
            max_length=None,
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
            logging_steps=1,
            save_strategy="no",
            seed=training.seed,
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=pairs(training, order),
        processing_class=tokenizer,
        callbacks=[clock],
    )


def pairs(training: TrainingPlan, order: list[str]) -> Dataset:
    """The rows as conversations, in the order in which our own training takes them."""
    by_id = {row["row_id"]: row for row in plan.finished_training_data(training).records()}
    return Dataset.from_list(
        [
            {
                "prompt": by_id[row_id]["messages"],
                "chosen": [{"role": "assistant", "content": by_id[row_id]["chosen"]}],
                "rejected": [{"role": "assistant", "content": by_id[row_id]["rejected"]}],
            }
            for row_id in order
        ]
    )


if __name__ == "__main__":
    main()
