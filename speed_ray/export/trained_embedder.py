"""Write a run's embedder as a folder of its own, of sentence-transformers or ONNX, with a card to judge it by."""

import contextlib
import hashlib
import json
import shutil
from itertools import islice
from pathlib import Path
from typing import Any

from speed_ray import __version__
from speed_ray.console.status import score_lines
from speed_ray.errors import UserError
from speed_ray.export.card import identity_yaml, languages_of, render, to_yaml
from speed_ray.export.onnx_model import FILES, refuse_without_packages, write_onnx
from speed_ray.export.target_folder import is_finished, new_folder
from speed_ray.recipes.schema import Recipe
from speed_ray.recipes.training_settings import Embedder
from speed_ray.storage.rounds import best_embedder
from speed_ray.storage.run import Run
from speed_ray.storage.store import read_if_exists
from speed_ray.storage.trained_models import EMBEDDER
from speed_ray.training.model_card import describe_choice, table_of_shares

CARD = "README.md"
MODEL_FORMS = (EMBEDDER, *FILES)
CHECKED_ROWS = 32  # whose queries and positives a converted model embeds as the original does


def export_embedder(run: Run, to: Path, form: str = EMBEDDER) -> list[str]:
    """Write the trained embedder, of several rounds the best one's, into a new folder with its card.

    Says what was written, or nothing where the folder is this export already. Raises UserError before the embedder
    is trained, or where another thing lies there.
    """
    if form != EMBEDDER:
        refuse_without_packages(form)
    recipe, model = run.recipe(), best_embedder(run)
    if recipe.embedder is None:
        raise UserError(f"{run.uri} trains no embedder: its recipe has no such section.")
    manifest = model.published()
    scores = score_lines(run)
    contents = {
        "form": form,
        "speed_ray": __version__,
        "model": manifest["digest"],
        "scores": hashlib.sha256(json.dumps(scores).encode()).hexdigest(),
        "license": recipe.license,
    }
    if is_finished(to, contents):
        return []
    weights = model.fetch()
    said = f"{EMBEDDER}: {manifest['digest'][:16]}, as {model.where} has it"
    with new_folder(to, contents) as folder:
        if form == EMBEDDER:
            shutil.copytree(weights, folder, dirs_exist_ok=True)
            checked = []
        else:
            shutil.copytree(weights, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.safetensors*"))
            checked = [write_onnx(weights, folder, form, _texts(run, manifest["facts"]))]
        use = {"file": FILES.get(form), "checked": checked, "max_length": _max_length(weights, recipe.embedder)}
        (folder / CARD).write_text(_card(run, recipe, manifest["facts"], scores, use), encoding="utf-8")
    return [said, *checked, *scores]


def _max_length(weights: Path, settings: Embedder) -> int:
    """Return how many tokens of a text the model reads: its base may read fewer than the recipe lets it."""
    with contextlib.suppress(FileNotFoundError, KeyError):  # static embeddings have no such limit
        named = json.loads((weights / "tokenizer_config.json").read_bytes())["model_max_length"]
        return min(int(named), settings.max_length)
    return settings.max_length


def _texts(run: Run, facts: dict[str, Any]) -> list[str]:
    """Return queries and positives of some rows that the embedder was trained on."""
    rows = islice(run.artifact(facts["data"]["artifact"]).records(), CHECKED_ROWS)
    return [text for row in rows for text in (row["query"], row["positive"])]


def _card(run: Run, recipe: Recipe, facts: dict[str, Any], scores: list[str], use: dict[str, Any]) -> str:
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
        **use,
        scores=scores,
        is_evaluated=read_if_exists(run.store, f"evaluation/{EMBEDDER}.json") is not None,
        recipe=identity_yaml(recipe),
    )
