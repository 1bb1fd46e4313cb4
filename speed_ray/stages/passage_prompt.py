"""Draw what a prompt about a passage asks for, from the passage's id and the planned row's: the same each time.

Prompts about one passage ask for different forms in turn. They show the same examples, so that all of their text but
the last lines is the same, and an engine with a prefix cache computes it once.
"""

import random
from collections.abc import Sequence
from typing import NamedTuple

from speed_ray import kinds
from speed_ray.kinds.kind import Kind, Shot, Slots
from speed_ray.prompts import own_examples
from speed_ray.recipes.schema import Recipe
from speed_ray.records import PassageRow, seed_of
from speed_ray.storage.planned_rows import PlannedRow
from speed_ray.text.language import other_language
from speed_ray.text.rules import is_plain
from speed_ray.text.words import split_words

SHOWN = 8  # examples of the user's in one prompt (Promptagator: up to eight)
NEAR = 0.3  # by which a query may be longer or shorter than one of the user's
DRAWS = 16  # of a form's lengths, which are two or three, to find one that a given text has


class PassagePrompt(NamedTuple):
    """Hold what varies in a prompt about a passage; `neighbour` is the text that is not to answer it, or ""."""

    kind: Kind
    slots: Slots
    language: str
    shots: Sequence[Shot]
    neighbour: str


def draw_kind(recipe: Recipe, row_id: str) -> str:
    """Draw the kind of a planned row by the weights of the mix."""
    mix = {name: weight for name, weight in sorted(recipe.mix.items()) if weight}
    return random.Random(seed_of(recipe.seed, row_id, "kind")).choices(list(mix), list(mix.values()))[0]


def draw_prompt(recipe: Recipe, row: PlannedRow[PassageRow], purpose: str, own: Sequence[Shot]) -> PassagePrompt:
    """Draw kind, slots, language and examples of a prompt, for DRAFT, PROPOSE or SYNTHESIZE; `own` are the user's."""
    kind = kinds.load_grounded(draw_kind(recipe, row.row_id))
    rng = random.Random(seed_of(recipe.seed, row.row_id, purpose))
    shown = _draw_own(recipe, kind, row.parent, own)
    slots = _draw_slots(recipe, kind, row, rng, shown) | recipe.slots.get(kind.name, {})
    language = rng.choices(list(recipe.languages), list(recipe.languages.values()))[0]
    return PassagePrompt(kind, slots, language, shown or kind.shots, _neighbour(kind, row.parent))


def fit_prompt(
    recipe: Recipe, row: PlannedRow[PassageRow], written: str, form: str, own: Sequence[Shot]
) -> PassagePrompt:
    """Draw the prompt about a passage to which what somebody wrote is a reply: of its form, length and language.

    Beside examples of the user's the form is theirs.
    """
    kind = kinds.load_grounded(draw_kind(recipe, row.row_id))
    rng = random.Random(seed_of(recipe.seed, row.row_id, "lesson"))
    words, shown = len(split_words(written)), _draw_own(recipe, kind, row.parent, own)
    asked = [form] if form in kind.forms else []
    draws = [_like_own(words)] if shown else [kind.slots(rng, *asked) for _ in range(DRAWS)]
    slots = min(draws, key=lambda slots: _words_off(slots, words)) | recipe.slots.get(kind.name, {})
    spoken = (name for name in recipe.languages if not other_language(row.parent["text"], name))
    language = next(spoken, next(iter(recipe.languages)))
    return PassagePrompt(kind, slots, language, shown or kind.shots, _neighbour(kind, row.parent))


def _neighbour(kind: Kind, passage: PassageRow) -> str:
    """Return the text that is not to answer; a passage has one where `synthesize.contrast` had them found."""
    return str(passage.get("neighbour", "")) if kind.answered_by_passage else ""


def _draw_own(recipe: Recipe, kind: Kind, passage: PassageRow, own: Sequence[Shot]) -> list[Shot]:
    """Draw up to `SHOWN` of the user's examples, none for a held-out passage and never the passage's own."""
    if passage["split"] != "train" or not kind.answered_by_passage:
        return []
    text = is_plain(passage["text"])
    others = [shot for shot in own if is_plain(shot.passage) not in text and text not in is_plain(shot.passage)]
    if len(others) <= SHOWN:
        return others  # the same for every passage, so all prompts share them
    return random.Random(seed_of(recipe.seed, passage["id"], "examples")).sample(others, SHOWN)


def _draw_slots(
    recipe: Recipe, kind: Kind, row: PlannedRow[PassageRow], rng: random.Random, own: Sequence[Shot]
) -> Slots:
    if own:
        return _like_own(len(split_words(rng.choice(own).lines[own_examples.FORM])))
    if not kind.forms:
        return kind.slots(rng)
    order = random.Random(seed_of(recipe.seed, row.parent["id"], "forms")).sample(kind.forms, len(kind.forms))
    form = recipe.slots.get(kind.name, {}).get("form", order[int(row.variant) % len(order)])
    return kind.slots(rng, form)


def _like_own(words: int) -> Slots:
    """Return the slots of a query like the user's, about as long as one of so many words."""
    return {
        "form": own_examples.FORM,
        "min_words": max(1, int(words * (1 - NEAR))),
        "max_words": max(3, int(words * (1 + NEAR))),
    }


def _words_off(slots: Slots, words: int) -> int:
    """Count the words by which a text of so many is shorter or longer than the slots ask for."""
    return max((slots.get("min_words") or 0) - words, words - (slots.get("max_words") or words), 0)
