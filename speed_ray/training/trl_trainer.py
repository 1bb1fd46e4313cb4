"""Train a model by SFT or DPO with TRL, as one of its workers: from the plan to the published weights.

Runs under any launcher that sets torch.distributed's variables (torchrun, Ray Train), or as a single process. At ZeRO
stage 0 workers are PyTorch's DistributedDataParallel, whose checkpoints any number of workers can load; from stage 1
on they are DeepSpeed's.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback
from transformers.utils.logging import disable_progress_bar

from speed_ray.recipes.training_settings import Dpo, Embedder, Sft
from speed_ray.training import distributed, dpo, load_model, model_card, plan, sft, tokenize
from speed_ray.training.checkpoints import LOGGED_STEPS, resume_training
from speed_ray.training.plan import Report, TrainingPlan
from speed_ray.training.tokenize import TokenizedRows
from speed_ray.training.trainer_mixin import TrainerInputs, TrainerMixin

EVALUATIONS = 10  # on the held-out rows during a training, at most about so many


def train_with_trl(training: TrainingPlan, report: Report) -> None:
    """Train a model by SFT or DPO from its last complete checkpoint on, and publish it; do nothing if it is published.

    Every worker calls this at once and calls `report` with the same steps' metrics. Raises UserError where recipe,
    data or model are at fault, or where the loss diverges.
    """
    settings = training.settings
    assert not isinstance(settings, Embedder)
    distributed.prepare_environment(settings, training.key)
    disable_progress_bar()
    digest = training.model.ensure_plan(plan.training_identity(training))
    if training.model.manifest() is not None:
        return
    tokenizer = load_model.load_chat_tokenizer(training)
    rows = tokenize.tokenize_rows(training, tokenizer, load_model.context_length(training))
    steps = tokenize.total_steps(training, rows)
    with tempfile.TemporaryDirectory(prefix="speed_ray-") as scratch:
        inputs = TrainerInputs(
            training=training,
            arguments=_arguments(settings, steps, bool(rows.held_out), training.seed, scratch),
            tokenizer=tokenizer,
            rows=rows,
            order=_row_order(training, rows, steps),
        )
        trainer = (sft if training.method == "sft" else dpo).make_trainer(inputs)
        trainer.trainer_inputs, trainer.report = inputs, report
        trainer.remove_callback(PrinterCallback)  # `report` prints the metrics
        with resume_training(training, digest, scratch) as (trainer.metrics, trainer.checkpoints, checkpoint):
            report({"step": 0, "steps": steps, **rows.counts()})
            trainer.args.eval_on_start = bool(rows.held_out) and checkpoint is None
            trainer.train(resume_from_checkpoint=checkpoint)
            trainer.checkpoints.wait()
            _publish(trainer, Path(scratch, "model"))
            distributed.barrier()


def _row_order(training: TrainingPlan, rows: TokenizedRows, steps: int) -> list[int]:
    settings = training.settings
    order = tokenize.shuffled_order(len(rows.train), steps * settings.global_batch_size, training.seed)
    packed = isinstance(settings, Sft) and settings.packing  # needs no padding
    return order if packed else tokenize.sort_by_length_within_batch(order, rows.train, settings.global_batch_size)


def _arguments(settings: Sft | Dpo, steps: int, evaluates: bool, seed: int, folder: str) -> dict[str, Any]:
    """Return the recipe's settings as arguments of transformers.TrainingArguments."""
    micro_batch_size = plan.per_device_batch_size(settings, distributed.world_size())
    accumulation_steps = settings.global_batch_size // (distributed.world_size() * micro_batch_size)
    deepspeed = distributed.deepspeed_config(settings, micro_batch_size, accumulation_steps)
    return {
        "output_dir": folder,
        "max_steps": steps,
        "per_device_train_batch_size": micro_batch_size,
        "per_device_eval_batch_size": micro_batch_size,
        "gradient_accumulation_steps": accumulation_steps,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": settings.lr_scheduler_type,
        "warmup_steps": round(settings.warmup_ratio * steps),
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "bf16": settings.precision == "bf16",
        "gradient_checkpointing": settings.gradient_checkpointing,
        "use_cpu": not settings.workers.num_gpus,
        "deepspeed": deepspeed if settings.zero_stage else None,
        "ddp_find_unused_parameters": False,
        "max_length": None,  # tokenize.py has excluded rows that do not fit
        "logging_steps": max(1, steps // LOGGED_STEPS),
        "logging_first_step": True,
        "logging_nan_inf_filter": False,  # it would log the last finite loss in place of a NaN
        "eval_strategy": "steps" if evaluates else "no",
        "eval_steps": max(1, steps // EVALUATIONS),
        "save_strategy": "steps",
        "save_steps": settings.save_steps,
        "seed": seed,
        "report_to": "none",
        "disable_tqdm": True,
    }


def _publish(trainer: TrainerMixin, folder: Path) -> None:
    """Gather the weights on rank 0 and store them with tokenizer, chat template and model card."""
    training = trainer.trainer_inputs.training
    if training.settings.lora is None and training.settings.precision == "bf16":
        trainer.model.to(torch.bfloat16)
    trainer.save_model(str(folder))
    if distributed.rank() == 0:
        (folder / "training_args.bin").unlink()  # pickle
        if training.settings.lora is not None:
            _normalize_adapter_config(training, folder / "adapter_config.json")
        trainer.metrics.upload(trainer.state.log_history)
        model_card.publish_with_card(training, folder, trainer.trainer_inputs.rows.counts(), trainer.state.log_history)


def _normalize_adapter_config(training: TrainingPlan, file: Path) -> None:
    """Make an adapter's config the same on every machine: PEFT writes modules in an order that changes from process to
    process, and the base model as a local path.

    A base model of the same run is named by its path within the run, as "./models/junior": without "./" it would be a
    name on the hub.
    """
    config, base = json.loads(file.read_text(encoding="utf-8")), training.base_weights
    config["base_model_name_or_path"] = f"./{base.path}" if base else training.base
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
