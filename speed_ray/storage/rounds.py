"""Find the later rounds of a run, each a folder within it: `<run>/later_rounds/<number>`, from 2 on.

A round is a run of its own that shares what was made before curation (`storage/run.py:OF_ROUND`). Its reference, by
which pairs are found again, negatives are mined and pairs are judged, is the embedder of the round before it.
"""

from collections.abc import Iterator
from typing import Any

from speed_ray.recipes.schema import Recipe
from speed_ray.storage.run import LATER_ROUNDS, Run
from speed_ray.storage.store import read_if_exists
from speed_ray.storage.trained_models import EMBEDDER, Model


def of_round(run: Run, recipe: Recipe, number: int) -> tuple[Run, Recipe]:
    """Return a round of a run, and its recipe: the first is the run itself.

    Later ones take over what language models said in the first, where they ask the same.
    """
    if number == 1:
        return run, recipe
    before = Model(_folder(run, number - 1), EMBEDDER).where
    changes = {"rounds": 1, "reuse": run.store.uri, "curate": recipe.curate.model_copy(update={"reference": before})}
    return _folder(run, number), recipe.model_copy(update=changes)


def later_rounds(run: Run) -> Iterator[tuple[int, Run]]:
    """Yield number and run of each later round that was begun."""
    number = 2
    while read_if_exists(run.store, f"{LATER_ROUNDS.strip('/')}/{number}/recipe.yaml") is not None:
        yield number, _folder(run, number)
        number += 1


def best_embedder(run: Run) -> Model:
    """Return the trained embedder of the round that gained most over the base on its own held-out queries.

    Of equal gains the earlier round's. Where a gain is unknown (`embedder.merge` is off, or no row is held out) the
    last round that has an embedder; the first where none has.
    """
    models = [Model(each, EMBEDDER) for each in (run, *(later for _, later in later_rounds(run)))]
    trained = [(model, manifest) for model in models if (manifest := model.manifest())]
    if not trained:
        return models[0]
    gains = [_gain(manifest["facts"]) for _, manifest in trained]
    known = [gain for gain in gains if gain is not None]
    best = gains.index(max(known)) if len(known) == len(gains) else -1
    return trained[best][0]


def _gain(facts: dict[str, Any]) -> float | None:
    """Return by how much nDCG@10 of the weights as published exceeds the base's; None where it was not measured."""
    merge = facts.get("merge", {})
    scores = {each["share"]: each.get("ndcg_at_10") for each in merge.get("shares", ())}
    tuned, base = scores.get(merge.get("share")), scores.get(0.0)
    return None if tuned is None or base is None else tuned - base


def round_name(number: int) -> str:
    """Name the embedder of a later round among those of an evaluation."""
    return f"{EMBEDDER}_round_{number}"


def _folder(run: Run, number: int) -> Run:
    return run if number == 1 else Run(f"{run.store.uri}{LATER_ROUNDS}{number}")
