"""The model card: what a model was trained from and on, how, and what came of it. It holds no time and no machine."""

import re
from typing import Any

import yaml

from speed_ray.training import plan
from speed_ray.training.plan import TrainingPlan


def published_facts(training: TrainingPlan, rows: dict[str, Any], history: list[dict[str, Any]]) -> dict[str, Any]:
    """What a published model says of itself: its identity, the rows it saw, its last metrics of each name."""
    last: dict[str, Any] = {}
    for logged in history:
        last |= logged
    timeless = {name: value for name, value in sorted(last.items()) if not re.search("runtime|per_second", name)}
    return {**plan.training_identity(training), "base_model": training.base, "rows": rows, "metrics": timeless}


def render_model_card(training: TrainingPlan, facts: dict[str, Any]) -> str:
    """The card as Markdown."""
    method = {
        "sft": "supervised fine-tuning",
        "dpo": "direct preference optimisation",
        "contrastive": "contrastive training",
    }[training.method]
    lora = training.settings.lora
    kind = f"A LoRA adapter (rank {lora.rank}) on" if lora else "All weights of"
    base = f"the same run's `{start.name}`" if lora and (start := training.base_weights) else f"`{training.base}`"
    return (
        f"# {training.name}\n\n"
        f"{kind} {base}, trained by {method} on synthetic rows (speed_ray {facts['code']}).\n\n"
        f"```yaml\n{yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)}```\n"
    )
