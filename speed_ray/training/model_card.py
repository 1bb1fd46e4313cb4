"""Publish a model with its card: what it was trained from, on what, how, with what metrics; no times, no machines."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from speed_ray.training.plan import TrainingPlan  # brings the stages, which `status` does without

METHODS = {
    "sft": "supervised fine-tuning",
    "dpo": "direct preference optimisation",
    "contrastive": "contrastive training",
}


def publish_with_card(
    training: "TrainingPlan",
    folder: Path,
    rows: dict[str, Any],
    history: list[dict[str, Any]],
    merge: dict[str, Any] | None = None,
    replaces: bool = False,
) -> None:
    """Write a model card into a folder of weights, and publish it with the card's facts in its manifest.

    The facts are the identity that the training began with, its row counts, the last value of each metric in
    `history`, and how weights were merged. `replaces` is as `Model.publish` has it.
    """
    from speed_ray.training.plan import training_identity

    last = {name: value for logged in history for name, value in logged.items()}
    timeless = {name: value for name, value in sorted(last.items()) if not re.search("runtime|per_second", name)}
    begun = training.model.plan() or training_identity(training)
    facts = {**begun, "base_model": training.base, "rows": rows, "metrics": timeless}
    facts |= {"merge": merge} if merge else {}
    (folder / "README.md").write_text(_render(training, facts), encoding="utf-8")
    training.model.publish(folder, facts, replaces)


def describe_choice(facts: dict[str, Any]) -> list[str]:
    """Say which checkpoint's weights an embedder has, and how they were merged with the base's; nothing if neither."""
    lines, rows = [], facts.get("rows", {})
    if "best_step" in rows:
        best, steps = rows["best_step"], rows["steps"]
        lines.append(
            f"No row is held out (curate.held_out), so the weights are those of the last step, {steps}."
            if best is None
            else f"The weights are those of step {best} of {steps}, the best on held-out queries."
        )
    if merge := facts.get("merge"):
        lines.append(_describe_merge(merge))
    return lines


def _describe_merge(merge: dict[str, Any]) -> str:
    share, queries = merge["share"], merge["queries"]
    chosen = next(each for each in merge["shares"] if each["share"] == share)
    mean = f"{share:g} of the trained weights and {1 - share:g} of the base's"
    if not queries:
        return f"No row is held out (curate.held_out), so no share could be chosen: published is {mean}."
    if not share:
        return f"Published is the base as it was: on {queries} held-out queries no share that guards allow is better."
    gain = f", over the base {chosen['gain']}" if "gain" in chosen else ""
    return f"Published is {mean}: nDCG@10 {chosen['ndcg_at_10']:.4f} on {queries} held-out queries{gain}."


def table_of_shares(merge: dict[str, Any]) -> str:
    """Write the scores of each share as a table in Markdown."""
    guards = list(merge["shares"][0].get("guards", {}))
    rows = [["trained share", "nDCG@10, held out", "over the base, 95%", *guards]]
    rows.append(["---"] * len(rows[0]))
    for each in merge["shares"]:
        scores = [each.get("ndcg_at_10"), *(each["guards"][name] for name in guards)]
        first, *others = ["" if score is None else f"{score:.4f}" for score in scores]
        rows.append([f"{each['share']:g}", first, each.get("gain", ""), *others])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _render(training: "TrainingPlan", facts: dict[str, Any]) -> str:
    lora = training.settings.lora
    weights = f"A LoRA adapter (rank {lora.r}) on" if lora else "All weights of"
    start = training.base_weights if lora else None
    base = f"the same run's `{start.name}`" if start else f"`{training.base}`"
    # The folder's digest is fixed before it is scored, so the scores cannot stand here.
    scores = f"`evaluation/{training.name}.json` of its run, with what each set left out, once it is evaluated"
    evaluated = f"Its scores are in {scores}.\n\n" if training.method == "contrastive" else ""
    chosen = "".join(f"{line}\n\n" for line in describe_choice(facts))
    chosen += f"{table_of_shares(facts['merge'])}\n" if "merge" in facts else ""
    return (
        f"# {training.name}\n\n"
        f"{weights} {base}, trained by {METHODS[training.method]} on synthetic rows (speed_ray {facts['code']}).\n\n"
        f"{evaluated}"
        f"{chosen}"
        f"```yaml\n{yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)}```\n"
    )
