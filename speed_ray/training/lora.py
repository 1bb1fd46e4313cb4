"""Low-rank adapters in PEFT's words."""

from typing import Literal

from peft import LoraConfig

from speed_ray.recipes.schema import Lora


def lora_config(lora: Lora, task: Literal["CAUSAL_LM", "FEATURE_EXTRACTION"]) -> LoraConfig:
    """What PEFT is told of the recipe's adapters."""
    return LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=lora.modules, task_type=task
    )
