"""Filter examples one by one: placeholders, length, query and positive alike, evaluation n-grams, and language."""

from collections.abc import Sequence
from functools import cache

import numpy as np

from speed_ray import kinds
from speed_ray.curation.contamination import EvaluationNgrams
from speed_ray.recipes.curate_settings import Curate
from speed_ray.records import Row
from speed_ray.text import language
from speed_ray.text.rules import Broken, fewest_to_copy
from speed_ray.text.token_hashes import Words


@cache
def kinds_with_labels() -> frozenset[str]:
    """List the kinds whose positive is a label."""
    return frozenset(name for name in kinds.kind_names() if kinds.load_kind(name).positive_is_label)


@cache
def kinds_sharing_words() -> frozenset[str]:
    """List the kinds whose query and positive should share words."""
    return frozenset(name for name in kinds.kind_names() if kinds.load_kind(name).shares_words)


def reject_reasons(
    rows: Sequence[Row], texts: Words, settings: Curate, evaluation: EvaluationNgrams
) -> dict[int, tuple[str, str]]:
    """Map the index of each row that breaks a rule to (reason, detail) of the first rule that it breaks.

    `texts` holds the words of 2 x rows texts: of each row its query, then its positive.
    """
    found = {place: broken for place, row in enumerate(rows) if (broken := _unwritten(row))}
    for place, broken in _lengths(texts, settings).items():
        found.setdefault(place, broken)
    for place, share in _copied(rows, texts, settings):
        found.setdefault(place, ("copied_query", f"query and positive share {share:.0%} of one's word triples"))
    for text, name in sorted(evaluation.find(texts).items()):
        place, side = divmod(text, 2)
        if not (side and rows[place]["kind"] in kinds_with_labels()):
            what = ("query", "positive")[side]
            found.setdefault(place, ("contaminated", f"the {what}, or 13 words of it, stands in {name}"))
    if settings.check_language:
        for place, row in enumerate(rows):
            if place not in found and (broken := _language(row)):
                found[place] = broken
    return found


def _unwritten(row: Row) -> Broken:
    """Check an example's texts as its reply's are: earlier versions took placeholders for texts."""
    kind = kinds.load_kind(row["kind"])
    texts = {kind.query: row["query"], kind.positive: row["positive"]}
    if kind.negative and row["negatives"]:
        texts[kind.negative] = row["negatives"][0]
    return kind.check_written(texts)


def _lengths(texts: Words, settings: Curate) -> dict[int, tuple[str, str]]:
    totals = texts.counts().reshape(-1, 2).sum(1)
    found = {}
    if settings.min_words is not None:
        for place in np.flatnonzero(totals < settings.min_words).tolist():
            words = f"query and positive have {totals[place]} words"
            found[place] = "too_short", f"{words}, wanted at least {settings.min_words}"
    if settings.max_words is not None:
        for place in np.flatnonzero(totals > settings.max_words).tolist():
            words = f"query and positive have {totals[place]} words"
            found[place] = "too_long", f"{words}, wanted at most {settings.max_words}"
    return found


def _copied(rows: Sequence[Row], texts: Words, settings: Curate) -> list[tuple[int, float]]:
    """Find rows whose query and positive share most of one's word triples, and the share: [(index, share)]."""
    if settings.max_overlap is None:
        return []
    triples = texts.grams(3)
    tagged = (triples.owners >> 1) << 33 | (triples.hashes >> np.uint64(32)).astype(np.int64) << 1 | triples.owners & 1
    tagged.sort()
    tagged = tagged[np.diff(tagged, prepend=-1) > 0]
    shared = np.bincount(tagged[1:][tagged[1:] >> 1 == tagged[:-1] >> 1] >> 33, minlength=len(rows))
    sizes = np.bincount((tagged >> 33) * 2 + (tagged & 1), minlength=2 * len(rows)).reshape(-1, 2)
    fewest = np.array([[fewest_to_copy(row[side]) for side in ("query", "positive")] for row in rows]).reshape(-1, 2)
    long_enough = texts.counts().reshape(-1, 2) >= fewest
    shares = np.where(long_enough, shared[:, None] / np.maximum(sizes, 1), 0).max(1)
    places = np.flatnonzero(shares >= settings.max_overlap).tolist()
    return [(place, float(shares[place])) for place in places if rows[place]["kind"] not in kinds_sharing_words()]


def _language(row: Row) -> Broken:
    for name in ("query", "positive"):
        if other := language.other_language(row[name], row["language"]):
            return "other_language", f"{name} is in {other!r}, wanted {row['language']}"
    return None
