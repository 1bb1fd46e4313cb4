"""Model cards: what a model was trained from, on what, how, and with what metrics; no times and no machines."""

import re
from typing import Any

import yaml

from speed_ray.training import plan
from speed_ray.training.plan import TrainingPlan

METHODS = {
    "sft": "supervised fine-tuning",
    "dpo": "direct preference optimisation",
    "contrastive": "contrastive training",
}


def published_facts(training: TrainingPlan, rows: dict[str, Any], history: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the facts of a model's manifest: its identity, its row counts, and the last value of each metric."""
    last: dict[str, Any] = {}
    for logged in history:
        last |= logged
    timeless = {name: value for name, value in sorted(last.items()) if not re.search("runtime|per_second", name)}
    return {**plan.training_identity(training), "base_model": training.base, "rows": rows, "metrics": timeless}


def render_model_card(training: TrainingPlan, facts: dict[str, Any]) -> str:
    """Render a model card as Markdown."""
    lora = training.settings.lora
    weights = f"A LoRA adapter (rank {lora.rank}) on" if lora else "All weights of"
    start = training.base_weights if lora else None
    base = f"the same run's `{start.name}`" if start else f"`{training.base}`"
    return (
        f"# {training.name}\n\n"
        f"{weights} {base}, trained by {METHODS[training.method]} on synthetic rows (speed_ray {facts['code']}).\n\n"
        f"```yaml\n{yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)}```\n"
    )
