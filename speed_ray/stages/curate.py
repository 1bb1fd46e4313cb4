"""Examples become `curated_examples`: what is worth learning from, split by task; every other row says why not.

Two passes over the input, a shard at a time: the first notes a few bytes of each row (curation/scan.py), the second
passes rows on or turns them away, in order. A row is turned away for what it is, then for what it repeats, then
because there are enough like it. What is turned away for what it is repeats nothing and is repeated by nothing.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from speed_ray import __version__
from speed_ray.curation import contamination, judgement, negatives, quotas, reference_model, scan, semantic
from speed_ray.curation.near_duplicates import Flags, MinHashIndex
from speed_ray.curation.reference_model import Numbers, Vectors
from speed_ray.curation.scan import Rules
from speed_ray.executor.stage import artifact_identity, count_records
from speed_ray.recipes.schema import Curate, Recipe
from speed_ray.records import CURATED, EXAMPLE, ExampleRow
from speed_ray.stages import driver_stage
from speed_ray.storage.run import CURATED_EXAMPLES, Run, finished_examples
from speed_ray.storage.shards import Artifact, Plan
from speed_ray.text.token_hashes import Hashes, Places

TRAIN, HELD_OUT = "train", "held_out"
REPEATS = ("duplicate", "near_duplicate", "semantic_duplicate")  # letter for letter, in its words, in its meaning
PLACES = {
    "decontaminate",
    "reference",
    "shard_rows",
    "workers",
}  # of the settings: what they name is in the plan by its digest


@dataclass(frozen=True)
class Prepared:
    """What is to be curated, and how: nothing is written yet."""

    source: Artifact
    rules: Rules
    plan: Plan


def prepare_curation(run: Run, recipe: Recipe) -> Prepared:
    """Raise UserError where the input is not finished or holds nothing, or a rule names what is not there."""
    source, decided = run.artifact(finished_examples(recipe)), rules(recipe)
    return Prepared(source, decided, plan(source, decided))


def publish_curated(run: Run, prepared: Prepared) -> Artifact:
    """Publish the examples that are learnt from."""
    artifact = run.artifact(CURATED_EXAMPLES)
    driver_stage.publish_rows(artifact, prepared.plan, CURATED, passed(prepared.source, prepared.rules))
    return artifact


def rules(recipe: Recipe) -> Rules:
    """Read what the rules need. Raises UserError for evaluation sets that cannot be read."""
    return Rules(recipe.curate, contamination.read_evaluation_texts(recipe.curate.decontaminate))


def plan(source: Artifact, rules: Rules) -> Plan:
    """Plan a row for each example."""
    settings = rules.settings
    identity = {
        "code": __version__,
        "input": artifact_identity(source),
        "settings": settings.model_dump(mode="json", exclude=PLACES),
        "decontaminate": rules.seen.digest,
        "reference": settings.reference and reference_model.reference_identity(settings.reference),
    }
    return Plan(CURATED_EXAMPLES, count_records(source), settings.shard_rows, input=source.name, identity=identity)


@dataclass(frozen=True)
class FirstPass:
    """What the first pass found out about all rows."""

    fit: Flags  # the gates, a reference's among them
    held_out: Flags
    labels: Hashes
    margins: Numbers | None
    vectors: Vectors | None  # on disk
    first: Places  # the row that each repeats; itself where it repeats none
    how: np.ndarray[Any, np.dtype[np.int8]]  # it does so: a place in REPEATS


def passed(source: Artifact, rules: Rules) -> Iterator[driver_stage.RowResult]:
    """What becomes of each example, in order."""
    with tempfile.TemporaryDirectory(prefix="speed_ray-curate-") as folder:
        known = _look(source, rules, Path(folder))
        decided = _decided(source, rules, known)
        wanted = rules.settings.mine_negatives
        yield from _mined(decided, wanted, known.vectors) if wanted else decided


def _decided(source: Artifact, rules: Rules, known: FirstPass) -> Iterator[driver_stage.RowResult]:
    taken = quotas.Quotas(rules.settings, _common(known, rules.settings))
    repeated = set(known.first[known.first != np.arange(len(known.first))].tolist())
    names: dict[int, str] = {}  # the ids of rows that others repeat
    begin = 0
    for rows in _shards(source):
        shard = slice(begin, begin + len(rows))
        names |= {place: row["id"] for place, row in enumerate(rows, begin) if place in repeated}
        refusals = _refusals(rows, rules, known, shard)
        facts = (each[shard].tolist() for each in (known.held_out, known.labels, known.first, known.how))
        for place, (row, held_out, label, first, how) in enumerate(zip(rows, *facts, strict=True), begin):
            if place - begin in refusals:
                yield _reject(row, *refusals[place - begin])
            elif first != place:
                yield _reject(row, REPEATS[how], f"repeats {names[first]}")
            elif not held_out and (broken := taken.refusal(row, label)):
                yield _reject(row, *broken)
            else:
                yield driver_stage.RowResult(row["id"], {**row, "split": HELD_OUT if held_out else TRAIN}, None)
        begin += len(rows)


def _refusals(rows: list[ExampleRow], rules: Rules, known: FirstPass, shard: slice) -> dict[int, tuple[str, str]]:
    """Why the rows of a shard that are not fit are not, said anew: the first pass kept a bit of each."""
    places = np.flatnonzero(~known.fit[shard]).tolist()
    by_gates = rules.refusals([rows[place] for place in places])
    found = {place: by_gates[number] for number, place in enumerate(places) if number in by_gates}
    if known.margins is not None and rules.settings.margin:
        for place in places:
            broken = reference_model.refusal(float(known.margins[shard][place]), rules.settings.margin)
            if broken:
                found.setdefault(place, broken)
    return found


def _mined(
    decided: Iterator[driver_stage.RowResult], wanted: int, vectors: Vectors | None
) -> Iterator[driver_stage.RowResult]:
    begin = 0
    while window := list(islice(decided, negatives.WINDOW)):
        places = [place for place, each in enumerate(window) if each.record]
        records = [each.record for each in window if each.record]
        negatives.mine(records, wanted, None if vectors is None else vectors[[begin + place for place in places]])
        yield from window
        begin += len(window)


def _look(source: Artifact, rules: Rules, folder: Path) -> FirstPass:
    settings = rules.settings
    pile = MinHashIndex(folder)
    parts = []
    for look in scan.scan_rows(source, rules):
        pile.add(look.sketches)
        parts.append((look.passed, look.held_out, look.texts, look.labels))
    fit, held_out, texts, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
    margins, vectors = judgement.judge_margins(source, settings, folder) if settings.reference else (None, None)
    if margins is not None and settings.margin:
        low, high = settings.margin
        fit &= np.isnan(margins) | (margins >= low) & (margins <= high)
    first = _firsts(texts, fit)
    how = np.zeros(len(first), np.int8)
    if settings.duplicate_similarity is not None:
        near = pile.repeated(fit & (first == np.arange(len(first))), settings.duplicate_similarity)
        first = _after(first, near, how, 1)
    if vectors is not None and settings.semantic_similarity is not None:
        stays = fit & (first == np.arange(len(first)))
        first = _after(first, semantic.repeated(vectors[:, 0], stays, settings.semantic_similarity), how, 2)
    pile.close()
    return FirstPass(fit, held_out, labels, margins, vectors, first, how)


def _after(first: Places, then: Places, how: np.ndarray[Any, np.dtype[np.int8]], what: int) -> Places:
    """Put a further rule behind those before it: what repeats a row that now repeats another repeats that."""
    how[then != np.arange(len(then))] = what
    return then[first]


def _firsts(texts: Hashes, passed: Flags) -> Places:
    """For each row the first that passed with the same text, else itself."""
    first = np.arange(len(texts))
    places = np.flatnonzero(passed)
    _, begins, inverse = np.unique(texts[places], return_index=True, return_inverse=True)
    first[places] = places[begins[inverse]]
    return first


def _common(known: FirstPass, settings: Curate) -> dict[int, int]:
    """The labels that too many examples have, and how many may."""
    if settings.label_share is None:
        return {}
    kept = known.fit & (known.first == np.arange(len(known.first))) & (known.labels != 0)
    labels, counts = np.unique(known.labels[kept], return_counts=True)
    most = max(1, int(settings.label_share * kept.sum()))
    return dict.fromkeys(labels[counts > most].tolist(), most)


def _shards(source: Artifact) -> Iterator[list[ExampleRow]]:
    for file in source.record_files().values():
        yield source.read(file.path).select(EXAMPLE.names).to_pylist()


def _reject(row: ExampleRow, reason: str, detail: str) -> driver_stage.RowResult:
    text = f"{row['query']}\n{row['positive']}"
    return driver_stage.reject(row["id"], row["parent_id"], CURATED_EXAMPLES, reason, detail, text, row["kind"])
