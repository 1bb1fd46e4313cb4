"""Write a run's embedder as a sentence-transformers folder of its own, with a card that others can judge it by."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from speed_ray import __version__
from speed_ray.console.status import score_lines
from speed_ray.errors import UserError
from speed_ray.export.card import identity_yaml, languages_of, render, to_yaml
from speed_ray.export.target_folder import is_finished, new_folder
from speed_ray.recipes.schema import Recipe
from speed_ray.storage.rounds import best_embedder
from speed_ray.storage.run import Run
from speed_ray.storage.store import read_if_exists
from speed_ray.storage.trained_models import EMBEDDER
from speed_ray.training.model_card import describe_choice, table_of_shares

CARD = "README.md"


def export_embedder(run: Run, to: Path) -> list[str]:
    """Copy the trained embedder, of several rounds the best one's, into a new folder with its card.

    Says what was written, or nothing where the folder is this export already. Raises UserError before the embedder
    is trained, or where another thing lies there.
    """
    recipe, model = run.recipe(), best_embedder(run)
    if recipe.embedder is None:
        raise UserError(f"{run.uri} trains no embedder: its recipe has no such section.")
    manifest = model.published()
    scores = score_lines(run)
    contents = {
        "form": EMBEDDER,
        "speed_ray": __version__,
        "model": manifest["digest"],
        "scores": hashlib.sha256(json.dumps(scores).encode()).hexdigest(),
        "license": recipe.license,
    }
    if is_finished(to, contents):
        return []
    weights = model.fetch()
    with new_folder(to, contents) as folder:
        shutil.copytree(weights, folder, dirs_exist_ok=True)
        (folder / CARD).write_text(_card(run, recipe, manifest["facts"], scores), encoding="utf-8")
    return [f"{EMBEDDER}: {manifest['digest'][:16]}, as {model.where} has it", *scores]


def _card(run: Run, recipe: Recipe, facts: dict[str, Any], scores: list[str]) -> str:
    base = facts["base_model"]
    is_of_hub = "://" not in base and not base.startswith(("/", ".", "~"))
    metadata = {
        **({"license": recipe.license} if recipe.license else {}),
        "language": languages_of(recipe),
        **({"base_model": base} if is_of_hub else {}),
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        "tags": ["sentence-transformers", "feature-extraction", "synthetic", "speed-ray"],
    }
    rows = facts["rows"]
    return render(
        "embedder_card.jinja",
        metadata=to_yaml(metadata),
        base=base if is_of_hub else "",
        grounded=recipe.is_grounded,
        license=recipe.license,
        version=__version__,
        data=facts["data"]["artifact"],
        trained=rows.get("trained", {}),
        left_out={name.partition("/")[2]: count for name, count in rows.items() if name.startswith("left_out/")},
        choice=describe_choice(facts),
        shares=table_of_shares(facts["merge"]) if "merge" in facts else "",
        scores=scores,
        is_evaluated=read_if_exists(run.store, f"evaluation/{EMBEDDER}.json") is not None,
        max_length=recipe.embedder.max_length if recipe.embedder else 0,
        recipe=identity_yaml(recipe),
    )
