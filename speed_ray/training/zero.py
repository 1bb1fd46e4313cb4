"""DeepSpeed's configuration, from the recipe."""

from typing import Any

from speed_ray.recipes.schema import TrainingConfig


def zero_config(settings: TrainingConfig, micro_batch: int, accumulated: int) -> dict[str, Any]:
    """What DeepSpeed is told; `accumulated` micro-batches are one step of one worker."""
    zero: dict[str, Any] = {"stage": settings.zero, "stage3_gather_16bit_weights_on_model_save": True}
    if settings.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": bool(settings.workers.gpus)}
    if settings.offload_weights:
        zero["offload_param"] = {"device": "cpu", "pin_memory": bool(settings.workers.gpus)}
    return {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": accumulated,
        "gradient_clipping": settings.clip,  # left out it would be 1.0 (deepspeed 0.19.8, runtime/constants.py)
        "bf16": {"enabled": settings.precision == "bf16"},
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,  # PyTorch's AdamW
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 1_000_000_000,
    }
