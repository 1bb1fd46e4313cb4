"""Filter and deduplicate examples into `curated_examples`, split by task; each other row is a reject with its reason.

Two passes over the input, a shard at a time: the first computes a few bytes of features per row (curation/scan.py),
and searches the corpus, where there is one; the second accepts or rejects rows in order: first by the filters, then as
duplicates, then by quotas. A row that a filter rejects is no duplicate, and no other row is a duplicate of it. Rows
about passages are split as their documents are, others by task.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from speed_ray.curation import contamination, corpus_search, negatives, quotas, reference_model, scan, semantic
from speed_ray.curation.corpus_negatives import CorpusMiner, takes_passages
from speed_ray.curation.near_duplicates import Flags, MinHashIndex, find_equal
from speed_ray.curation.query_blocks import Corpus, open_corpus
from speed_ray.curation.reference_model import Numbers, Vectors
from speed_ray.curation.scan import Rules
from speed_ray.errors import UserError
from speed_ray.executor.stage import artifact_identity, count_records
from speed_ray.recipes.curate_settings import Curate, MineNegatives
from speed_ray.recipes.schema import Recipe
from speed_ray.records import CURATED, EXAMPLE, HELD_OUT, TRAIN, ExampleRow
from speed_ray.stages import driver_stage
from speed_ray.stages.embed_passages import plan_embeddings, publish_embeddings
from speed_ray.storage.fingerprint import code_digests, identity_fields
from speed_ray.storage.run import CURATED_EXAMPLES, PASSAGES, Run, finished_examples
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import Artifact
from speed_ray.text.token_hashes import Hashes, Places

DUPLICATE_REASONS = ("duplicate", "near_duplicate", "semantic_duplicate")


@dataclass(frozen=True)
class Prepared:
    """Hold a planned curation, of which nothing is written yet."""

    source: Artifact
    rules: Rules
    plan: Plan
    passages: Artifact | None  # of a corpus, where a rule asks for it
    embeddings: Plan | None  # theirs by the reference


def prepare_curation(run: Run, recipe: Recipe) -> Prepared:
    """Plan the curation. Raises UserError where the input is unfinished or empty, or a rule's file is missing."""
    source, decided, passages = run.artifact(finished_examples(recipe)), rules(recipe), searched_passages(run, recipe)
    embeddings = None
    if passages and recipe.curate.reference and corpus_search.retrievers(recipe.curate):
        embeddings = plan_embeddings(run, recipe.curate)
    return Prepared(source, decided, plan(source, decided, passages), passages, embeddings)


def publish_curated(run: Run, prepared: Prepared) -> Artifact:
    """Filter, deduplicate and publish the examples."""
    artifact = run.artifact(CURATED_EXAMPLES)
    driver_stage.publish_rows(artifact, prepared.plan, CURATED, curate_rows(run, prepared))
    return artifact


def searched_passages(run: Run, recipe: Recipe) -> Artifact | None:
    """Return the published passages, or None where no rule asks for them.

    Raises UserError where they are unfinished, or fewer than the negatives that an example is to get.
    """
    if not recipe.is_grounded and (recipe.corpus is None or not corpus_search.retrievers(recipe.curate)):
        return None
    passages = run.artifact(PASSAGES)
    artifact_identity(passages)
    refuse_few_passages(passages, recipe.curate)
    return passages


def refuse_few_passages(passages: Artifact, settings: Curate) -> None:
    """Raise UserError where published passages are fewer than the negatives that an example is to get."""
    each, there = settings.mine_negatives.count, count_records(passages)
    asked = each * len(settings.miners)
    if asked >= there:
        raise UserError(
            f"curate.mine_negatives asks for {asked:,} negatives of each example, {each:,} by "
            f"{' and '.join(settings.miners)}, and beside its own passage the corpus has {there - 1:,}.\n"
            "Lower curate.mine_negatives, or give corpus.source more documents."
        )


def rules(recipe: Recipe) -> Rules:
    """Load the filters' settings and evaluation texts. Raises UserError for evaluation sets that cannot be read."""
    return Rules(recipe.curate, contamination.read_evaluation_texts(recipe.curate.decontaminate))


def plan(source: Artifact, rules: Rules, passages: Artifact | None) -> Plan:
    """Plan a row for each example."""
    settings = rules.settings
    identity = {
        "code": code_identity(settings, passages is not None),
        "input": artifact_identity(source),
        "settings": identity_fields(settings),
        "decontaminate": rules.evaluation.digest,
        "reference": settings.reference and reference_model.reference_digest(settings.reference),
        "passages": passages and artifact_identity(passages),
    }
    return Plan(CURATED_EXAMPLES, count_records(source), settings.shard_rows, input=source.name, identity=identity)


def code_identity(settings: Curate, has_corpus: bool) -> dict[str, str]:
    """Hash the code of the rules that are on: a change of one that is off decides no row."""
    is_on = {
        "curation.contamination": settings.decontaminate,
        "curation.corpus_negatives": has_corpus and settings.mine_negatives.count,
        "curation.corpus_search": has_corpus,
        "curation.near_duplicates": settings.duplicate_similarity is not None,
        "curation.negatives": settings.mine_negatives.count,
        "curation.query_blocks": has_corpus,
        "curation.reference_model": settings.reference,
        "curation.semantic": settings.semantic_similarity is not None,
        "stages.embed_passages": has_corpus and settings.reference,
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
    miner: CorpusMiner | None  # where there is a corpus, in which all queries were searched for
    lost: Flags  # whose passage was not found again
    first: Places  # index of the row that each duplicates; its own where it is no duplicate
    how: np.ndarray[Any, np.dtype[np.int8]]  # index into DUPLICATE_REASONS


def curate_rows(run: Run, prepared: Prepared) -> Iterator[driver_stage.RowResult]:
    """Yield the record or reject of each example, in order."""
    settings = prepared.rules.settings
    embeddings = publish_embeddings(run, prepared.embeddings, settings) if prepared.embeddings else None
    with tempfile.TemporaryDirectory(prefix="speed_ray-curate-") as name:
        folder, passages = Path(name), prepared.passages
        corpus = open_corpus(passages, embeddings, folder) if passages else None
        features = _first_pass(prepared.source, prepared.rules, corpus, folder)
        decided = _decided(prepared.source, prepared.rules, features)
        wanted = settings.mine_negatives
        yield from _mined(decided, wanted, features) if wanted.count else decided


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
    if features.miner and rules.settings.found_again:
        for row_index in np.flatnonzero(features.lost[shard]).tolist():
            broken = features.miner.found.not_found(shard.start + row_index, rules.settings.found_again)
            found.setdefault(row_index, broken)
    return found


def _mined(
    decided: Iterator[driver_stage.RowResult], settings: MineNegatives, features: FirstPass
) -> Iterator[driver_stage.RowResult]:
    """Give examples negatives: passages of the corpus where there is one and they will do, else others' positives."""
    begin = 0
    while window := list(islice(decided, negatives.WINDOW)):
        kept: dict[int, Any] = {index: result.record for index, result in enumerate(window) if result.record}
        if features.miner:
            asking = [index for index, row in kept.items() if takes_passages(row)]
            counted = features.miner.mine([kept.pop(index) for index in asking], begin + np.array(asking, int))
            for index, mined in zip(asking, counted, strict=True):
                window[index] = window[index]._replace(mined=mined)
        vectors = None if features.vectors is None else features.vectors[[begin + index for index in kept]]
        negatives.mine_negatives(list(kept.values()), settings, vectors)
        yield from window
        begin += len(window)


def _first_pass(source: Artifact, rules: Rules, corpus: Corpus | None, folder: Path) -> FirstPass:
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
    miner, lost = None, np.zeros(len(fit), bool)
    if corpus is not None:
        found = corpus_search.search_corpus(corpus, source, settings, fit, vectors, folder)
        miner = CorpusMiner(corpus, found, vectors, settings)
        held_out = np.where(found.parents < 0, held_out, corpus.index.held_out[found.parents])
        if settings.found_again:
            lost = fit & found.lost(settings.found_again)
            fit &= ~lost
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
    return FirstPass(fit, held_out, labels, margins, vectors, miner, lost, first, how)


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
