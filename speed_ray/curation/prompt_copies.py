"""Tell how much of an example is its prompt over again: a model that has nothing to say repeats what it was told.

Compared are word triples, with those of all that the recipe's prompts say whatever they are about: guidelines in each
of their wordings, and the examples in them, the user's own among these. Topic, task and passage are left out, whose
words an example may well have.
"""

import random
from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from speed_ray import kinds
from speed_ray.kinds.kind import Kind
from speed_ray.prompts.own_examples import FORM, read_own_examples
from speed_ray.prompts.render import A_PASSAGE, Prompts, load_prompts
from speed_ray.recipes.schema import Recipe
from speed_ray.records import PassageRow, Row
from speed_ray.text.token_hashes import Hashes, hash_tokens

DRAWS = 20  # of a kind's slots, by which its guidelines are worded
FEWEST = 3  # triples: a shorter text may well be like one of a prompt
SOME_NEIGHBOUR = "a neighbour"  # without one a prompt says nothing of any
NO_PASSAGE: PassageRow = {**A_PASSAGE, "title": "", "headings": "", "text": ""}


def prompt_triples(recipe: Recipe) -> Hashes:
    """Hash the word triples of all prompts for examples that a recipe can ask -> sorted, each once."""
    prompts = load_prompts(recipe.prompts)
    asked = [name for name, weight in sorted(recipe.mix.items()) if weight]
    said = (_grounded_prompts if recipe.is_grounded else _task_prompts)(recipe, prompts, asked)
    return np.unique(hash_tokens(list(dict.fromkeys(said))).grams(3).hashes)


def copied_shares(rows: Sequence[Row], triples: Hashes, grounded: bool) -> list[float]:
    """Compute the share of each row's query or positive, whichever is larger, that prompts say as well.

    `triples` are those of the prompts; the passage that a `grounded` row was written about is no model's text.
    """
    texts = [row[side] if _is_written(row["kind"], side, grounded) else "" for row in rows for side in _SIDES]
    grams = hash_tokens(texts).grams(3)
    pairs = np.unique(np.stack([grams.owners.astype(np.uint64), grams.hashes], 1), axis=0)
    owners, known = pairs[:, 0].astype(np.int64), np.isin(pairs[:, 1], triples)
    counts, shared = (np.bincount(owners[each], minlength=len(texts)) for each in (slice(None), known))
    shares = np.where(counts >= FEWEST, shared / np.maximum(counts, 1), 0.0)
    found: list[float] = shares.reshape(-1, len(_SIDES)).max(1).tolist()
    return found


_SIDES = ("query", "positive")


def _is_written(name: str, side: str, grounded: bool) -> bool:
    kind = kinds.load_kind(name)
    return not (grounded and kind.grounded and getattr(kind.grounded, side) == kind.grounded.passage)


def _task_prompts(recipe: Recipe, prompts: Prompts, asked: Sequence[str]) -> Iterator[str]:
    for kind in map(kinds.load_kind, asked):
        for draw in range(DRAWS):
            rng = random.Random(draw)
            slots = kind.slots(rng) | recipe.slots.get(kind.name, {})
            messages = prompts.synthesize(kind, slots, "", "", "English", rng)
            yield from (message["content"] for message in messages)


def _grounded_prompts(recipe: Recipe, prompts: Prompts, asked: Sequence[str]) -> Iterator[str]:
    own = read_own_examples(recipe.corpus.examples if recipe.corpus else None).shots
    yield from (shot.lines[FORM] for shot in own)
    for kind in map(kinds.load_grounded, asked):
        for draw in range(DRAWS):
            yield from _ground(recipe, prompts, kind, random.Random(draw))


def _ground(recipe: Recipe, prompts: Prompts, kind: Kind, rng: random.Random) -> Iterator[str]:
    for form in kind.forms or (None,):
        slots = (kind.slots(rng) if form is None else kind.slots(rng, form)) | recipe.slots.get(kind.name, {})
        neighbours = ("", SOME_NEIGHBOUR) if recipe.synthesize.contrast else ("",)
        for completion, neighbour in product((False, True), neighbours):
            messages = prompts.ground(kind, slots, NO_PASSAGE, "English", kind.shots, completion, neighbour)
            yield from (message["content"] for message in messages)
