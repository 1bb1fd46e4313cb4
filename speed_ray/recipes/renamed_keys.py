"""Names that recipe keys had up to version 0.1.0. A recipe that has one is refused; a run's frozen one is read."""

from collections.abc import Iterable

PREVIOUS_NAMES = {
    "accelerator_type": "accelerator",
    "engine_kwargs": "args",
    "eval_fraction": "evaluation",
    "global_batch_size": "batch",
    "label_selector": "labels",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "lr_scheduler_type": "schedule",
    "margin_range": "margin",
    "matryoshka_dims": "dimensions",
    "max_concurrency": "in_flight",
    "max_failures": "retries",
    "max_grad_norm": "clip",
    "max_overlap": "copied",
    "max_retries": "retries",
    "max_size": "max",
    "max_steps": "most_steps",
    "max_tokens_per_stream": "one_stream",
    "micro_batch_size": "micro_batch",
    "min_size": "min",
    "min_workers": "least",
    "no_in_batch_negatives": "own_negatives_only",
    "num_cpus": "cpus",
    "num_gpus": "gpus",
    "num_train_epochs": "epochs",
    "num_workers": "count",
    "offload_param": "offload_weights",
    "r": "rank",
    "request_log": "asked",
    "save_steps": "checkpoint_every",
    "stream": "follow",
    "structured_outputs": "structured",
    "target_modules": "modules",
    "tasks_per_prompt": "ask",
    "tasks_per_topic": "keep",
    "utilization_log": "busy",
    "warmup_ratio": "warmup",
    "zero_stage": "zero",
}


def current_name(key: str, valid: Iterable[str]) -> str | None:
    """Return the name among these valid keys that replaces an old one, or None where there is none."""
    return next((name for name in valid if PREVIOUS_NAMES.get(name) == key), None)
