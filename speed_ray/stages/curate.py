"""Filter and deduplicate examples into `curated_examples`, split by task; each other row is a reject with its reason.

Two passes over the input, a shard at a time: the first computes a few bytes of features per row (curation/scan.py),
the second accepts or rejects rows in order: first by the filters, then as duplicates, then by quotas. A row that a
filter rejects is no duplicate, and no other row is a duplicate of it.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from speed_ray.curation import contamination, negatives, quotas, reference_model, scan, semantic
from speed_ray.curation.near_duplicates import Flags, MinHashIndex, find_equal
from speed_ray.curation.reference_model import Numbers, Vectors
from speed_ray.curation.scan import Rules
from speed_ray.executor.stage import artifact_identity, count_records
from speed_ray.recipes.curate_settings import Curate
from speed_ray.recipes.schema import Recipe
from speed_ray.records import CURATED, EXAMPLE, ExampleRow
from speed_ray.stages import driver_stage
from speed_ray.storage.fingerprint import code_digests, identity_fields
from speed_ray.storage.run import CURATED_EXAMPLES, Run, finished_examples
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import Artifact
from speed_ray.text.token_hashes import Hashes, Places

TRAIN, HELD_OUT = "train", "held_out"
DUPLICATE_REASONS = ("duplicate", "near_duplicate", "semantic_duplicate")


@dataclass(frozen=True)
class Prepared:
    """Hold a planned curation, of which nothing is written yet."""

    source: Artifact
    rules: Rules
    plan: Plan


def prepare_curation(run: Run, recipe: Recipe) -> Prepared:
    """Plan the curation. Raises UserError where the input is unfinished or empty, or a rule's file is missing."""
    source, decided = run.artifact(finished_examples(recipe)), rules(recipe)
    return Prepared(source, decided, plan(source, decided))


def publish_curated(run: Run, prepared: Prepared) -> Artifact:
    """Filter, deduplicate and publish the examples."""
    artifact = run.artifact(CURATED_EXAMPLES)
    driver_stage.publish_rows(artifact, prepared.plan, CURATED, curate_rows(prepared.source, prepared.rules))
    return artifact


def rules(recipe: Recipe) -> Rules:
    """Load the filters' settings and evaluation texts. Raises UserError for evaluation sets that cannot be read."""
    return Rules(recipe.curate, contamination.read_evaluation_texts(recipe.curate.decontaminate))


def plan(source: Artifact, rules: Rules) -> Plan:
    """Plan a row for each example."""
    settings = rules.settings
    identity = {
        "code": code_identity(settings),
        "input": artifact_identity(source),
        "settings": identity_fields(settings),
        "decontaminate": rules.evaluation.digest,
        "reference": settings.reference and reference_model.reference_digest(settings.reference),
    }
    return Plan(CURATED_EXAMPLES, count_records(source), settings.shard_rows, input=source.name, identity=identity)


def code_identity(settings: Curate) -> dict[str, str]:
    """Hash the code of the rules that are on: a change of one that is off decides no row."""
    is_on = {
        "curation.contamination": settings.decontaminate,
        "curation.near_duplicates": settings.duplicate_similarity is not None,
        "curation.negatives": settings.mine_negatives,
        "curation.reference_model": settings.reference,
        "curation.semantic": settings.semantic_similarity is not None,
        "text.language": settings.check_language,
    }
    return code_digests(__name__, unused=[module for module, on in is_on.items() if not on])


@dataclass(frozen=True)
class FirstPass:
    """Hold the features of all rows that the second pass needs, one array element per row."""

    fit: Flags  # passed the filters, the reference model's among them
    held_out: Flags
    labels: Hashes
    margins: Numbers | None
    vectors: Vectors | None  # on disk
    first: Places  # index of the row that each duplicates; its own where it is no duplicate
    how: np.ndarray[Any, np.dtype[np.int8]]  # index into DUPLICATE_REASONS


def curate_rows(source: Artifact, rules: Rules) -> Iterator[driver_stage.RowResult]:
    """Yield the record or reject of each example, in order."""
    with tempfile.TemporaryDirectory(prefix="speed_ray-curate-") as folder:
        features = _first_pass(source, rules, Path(folder))
        decided = _decided(source, rules, features)
        wanted = rules.settings.mine_negatives
        yield from _mined(decided, wanted, features.vectors) if wanted else decided


def _decided(source: Artifact, rules: Rules, features: FirstPass) -> Iterator[driver_stage.RowResult]:
    taken = quotas.Quotas(rules.settings, _common(features, rules.settings))
    repeated = set(features.first[features.first != np.arange(len(features.first))].tolist())
    names: dict[int, str] = {}  # the ids of rows that others repeat
    begin = 0
    for rows in _shards(source):
        shard = slice(begin, begin + len(rows))
        names |= {row_index: row["id"] for row_index, row in enumerate(rows, begin) if row_index in repeated}
        refusals = _refusals(rows, rules, features, shard)
        columns = (each[shard].tolist() for each in (features.held_out, features.labels, features.first, features.how))
        for row_index, (row, held_out, label, first, how) in enumerate(zip(rows, *columns, strict=True), begin):
            if row_index - begin in refusals:
                yield _reject(row, *refusals[row_index - begin])
            elif first != row_index:
                yield _reject(row, DUPLICATE_REASONS[how], f"repeats {names[first]}")
            elif not held_out and (broken := taken.refusal(row, label)):
                yield _reject(row, *broken)
            else:
                yield driver_stage.RowResult(row["id"], {**row, "split": HELD_OUT if held_out else TRAIN}, None)
        begin += len(rows)


def _refusals(rows: list[ExampleRow], rules: Rules, features: FirstPass, shard: slice) -> dict[int, tuple[str, str]]:
    """Recompute the rejection reasons of a shard by row index: the first pass stored only pass or fail."""
    indices = np.flatnonzero(~features.fit[shard]).tolist()
    by_filters = rules.reject_reasons([rows[row_index] for row_index in indices])
    found = {row_index: by_filters[number] for number, row_index in enumerate(indices) if number in by_filters}
    if features.margins is not None and rules.settings.margin_range:
        for row_index in indices:
            broken = reference_model.margin_broken(
                float(features.margins[shard][row_index]), rules.settings.margin_range
            )
            if broken:
                found.setdefault(row_index, broken)
    return found


def _mined(
    decided: Iterator[driver_stage.RowResult], wanted: int, vectors: Vectors | None
) -> Iterator[driver_stage.RowResult]:
    begin = 0
    while window := list(islice(decided, negatives.WINDOW)):
        records = [result.record for result in window if result.record]
        indices = [index for index, result in enumerate(window, begin) if result.record]
        negatives.mine_negatives(records, wanted, None if vectors is None else vectors[indices])
        yield from window
        begin += len(window)


def _first_pass(source: Artifact, rules: Rules, folder: Path) -> FirstPass:
    settings = rules.settings
    index = MinHashIndex(folder)
    parts = []
    for row_features in scan.scan_rows(source, rules):
        index.add(row_features.sketches)
        parts.append((row_features.passed, row_features.held_out, row_features.texts, row_features.labels))
    fit, held_out, texts, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
    margins, vectors = reference_model.embed_artifact(source, settings, folder) if settings.reference else (None, None)
    if margins is not None and settings.margin_range:
        low, high = settings.margin_range
        fit &= np.isnan(margins) | (margins >= low) & (margins <= high)
    first = find_equal(texts, fit)
    how = np.zeros(len(first), np.int8)
    if settings.duplicate_similarity is not None:
        near = index.find_duplicates(fit & (first == np.arange(len(first))), settings.duplicate_similarity)
        first = _after(first, near, how, 1)
    if vectors is not None and settings.semantic_similarity is not None:
        stays = fit & (first == np.arange(len(first)))
        first = _after(
            first, semantic.find_semantic_duplicates(vectors[:, 0], stays, settings.semantic_similarity), how, 2
        )
    index.close()
    return FirstPass(fit, held_out, labels, margins, vectors, first, how)


def _after(first: Places, then: Places, how: np.ndarray[Any, np.dtype[np.int8]], what: int) -> Places:
    """Compose two duplicate maps, arrays of row indices, so that every chain ends at one row; mark `what` in `how`."""
    how[then != np.arange(len(then))] = what
    return then[first]


def _common(features: FirstPass, settings: Curate) -> dict[int, int]:
    """Return the label hashes of which some examples must go, each with its maximum count in training.

    That count is the largest one that is at most `label_share` of what stays. With fewer than 1 / `label_share` labels
    there is none: then it is that share of what was there.
    """
    if settings.label_share is None:
        return {}
    is_first = features.first == np.arange(len(features.first))
    kept = features.fit & is_first & ~features.held_out & (features.labels != 0)
    labels, counts = np.unique(features.labels[kept], return_counts=True)
    most = _largest_count(counts, settings.label_share)
    return dict.fromkeys(labels[counts > most].tolist(), most)


def _largest_count(counts: Places, share: float) -> int:
    """Find the largest m <= share * sum(min(counts, m)); where m = 1 is too large, share * sum(counts), or 1."""
    if share * len(counts) < 1:
        return max(1, int(share * counts.sum()))
    low, high = 1, int(counts.max())  # the condition holds up to some m, and for none beyond it
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle <= share * np.minimum(counts, middle).sum() else (low, middle - 1)
    return low


def _shards(source: Artifact) -> Iterator[list[ExampleRow]]:
    for file in source.record_files().values():
        yield source.read(file.path).select(EXAMPLE.names).to_pylist()


def _reject(row: ExampleRow, reason: str, detail: str) -> driver_stage.RowResult:
    text = f"{row['query']}\n{row['positive']}"
    return driver_stage.reject(row["id"], row["parent_id"], CURATED_EXAMPLES, reason, detail, text, row["kind"])
