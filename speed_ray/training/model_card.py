"""Publish a model with its card: what it was trained from, on what, how, with what metrics; no times, no machines."""

import re
from pathlib import Path
from typing import Any

import yaml

from speed_ray.training import plan
from speed_ray.training.plan import TrainingPlan

METHODS = {
    "sft": "supervised fine-tuning",
    "dpo": "direct preference optimisation",
    "contrastive": "contrastive training",
}


def publish_with_card(
    training: TrainingPlan, folder: Path, rows: dict[str, Any], history: list[dict[str, Any]]
) -> None:
    """Write a model card into a folder of weights, and publish it with the card's facts in its manifest.

    The facts are the identity that the training began with, its row counts, and the last value of each metric in
    `history`.
    """
    last = {name: value for logged in history for name, value in logged.items()}
    timeless = {name: value for name, value in sorted(last.items()) if not re.search("runtime|per_second", name)}
    begun = training.model.plan() or plan.training_identity(training)
    facts = {**begun, "base_model": training.base, "rows": rows, "metrics": timeless}
    (folder / "README.md").write_text(_render(training, facts), encoding="utf-8")
    training.model.publish(folder, facts)


def _render(training: TrainingPlan, facts: dict[str, Any]) -> str:
    lora = training.settings.lora
    weights = f"A LoRA adapter (rank {lora.r}) on" if lora else "All weights of"
    start = training.base_weights if lora else None
    base = f"the same run's `{start.name}`" if start else f"`{training.base}`"
    # The folder's digest is fixed before it is scored, so the scores cannot stand here.
    scores = f"`evaluation/{training.name}.json` of its run, with what each set left out, once it is evaluated"
    evaluated = f"Its scores are in {scores}.\n\n" if training.method == "contrastive" else ""
    return (
        f"# {training.name}\n\n"
        f"{weights} {base}, trained by {METHODS[training.method]} on synthetic rows (speed_ray {facts['code']}).\n\n"
        f"{evaluated}"
        f"```yaml\n{yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)}```\n"
    )
