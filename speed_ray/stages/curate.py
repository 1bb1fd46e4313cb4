"""Examples become `curated_examples`: what is worth learning from, split by task; every other row says why not.

Two passes over the input, a shard at a time: the first notes a few bytes of each row (curation/looks.py), the second
passes rows on or turns them away, in order. A row is turned away for what it is, then for what it repeats, then
because there are enough like it. What is turned away for what it is repeats nothing and is repeated by nothing.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speed_ray import __version__, stage
from speed_ray.curation import contamination, looks, quotas
from speed_ray.curation.looks import Rules
from speed_ray.curation.near_duplicates import Flags, Pile
from speed_ray.curation.words import Hashes, Places
from speed_ray.errors import UserError
from speed_ray.recipe import Curate, Recipe
from speed_ray.records import CURATED, EXAMPLE, Row
from speed_ray.run import CURATED_EXAMPLES, EXAMPLES, REVISED_EXAMPLES, Run
from speed_ray.shards import RECORDS, Artifact, Plan
from speed_ray.stages import passing

TRAIN, HELD_OUT = "train", "held_out"
PLACES = {"decontaminate", "shard_rows"}  # of the settings: what they name is in the plan by its digest


def curate(run: Run, recipe: Recipe) -> Artifact:
    """Publish the examples that are learnt from. Raises UserError where the input is not finished or holds nothing."""
    source = run.artifact(REVISED_EXAMPLES if recipe.synthesize.revise else EXAMPLES)
    decided = rules(recipe)
    artifact = run.artifact(CURATED_EXAMPLES)
    passing.publish(artifact, plan(source, decided), CURATED, passed(source, decided))
    return artifact


def rules(recipe: Recipe) -> Rules:
    """Read what the rules need. Raises UserError for evaluation sets that cannot be read."""
    return Rules(recipe.curate, contamination.read(recipe.curate.decontaminate))


def plan(source: Artifact, rules: Rules) -> Plan:
    """Plan a row for each example."""
    settings = rules.settings
    identity = {
        "code": __version__,
        "input": stage.content(source),
        "settings": settings.model_dump(mode="json", exclude=PLACES),
        "decontaminate": rules.seen.digest,
    }
    manifest = source.manifest()
    assert manifest is not None
    rows: int = manifest["counts"]["records"]
    if not rows:
        raise UserError(
            f"{source.where} holds no record, so there is nothing to curate.\n"
            f"See why its rows were rejected with: speed-ray status {source.store.uri}"
        )
    return Plan(CURATED_EXAMPLES, rows, settings.shard_rows, input=source.name, identity=identity)


@dataclass(frozen=True)
class Known:
    """What the first pass found out about all rows."""

    passed: Flags  # the gates
    held_out: Flags
    labels: Hashes
    first: Places  # the row that each repeats; itself where it repeats none
    same: Flags  # letter for letter


def passed(source: Artifact, rules: Rules) -> Iterator[passing.Passed]:
    """What becomes of each example, in order."""
    known = _look(source, rules)
    taken = quotas.Quotas(rules.settings, _common(known, rules.settings))
    repeated = set(known.first[known.first != np.arange(len(known.first))].tolist())
    names: dict[int, str] = {}  # the ids of rows that others repeat
    begin = 0
    for rows in _shards(source):
        end = begin + len(rows)
        names |= {place: row["id"] for place, row in enumerate(rows, begin) if place in repeated}
        facts = (each[begin:end].tolist() for each in (known.passed, known.held_out, known.labels, known.same))
        firsts = known.first[begin:end].tolist()
        refused = rules.refusals([rows[place] for place in np.flatnonzero(~known.passed[begin:end])])
        reasons = iter(refused[place] for place in sorted(refused))
        for place, row, first, is_fit, held_out, label, same in zip(
            range(begin, end), rows, firsts, *facts, strict=True
        ):
            if not is_fit:
                yield _reject(row, *next(reasons))
            elif first != place:
                yield _reject(row, "duplicate" if same else "near_duplicate", f"repeats {names[first]}")
            elif not held_out and (broken := taken.refusal(row, label)):
                yield _reject(row, *broken)
            else:
                row["split"] = HELD_OUT if held_out else TRAIN
                yield passing.Passed(row["id"], row, None)
        begin = end


def _look(source: Artifact, rules: Rules) -> Known:
    with tempfile.TemporaryDirectory(prefix="speed_ray-curate-") as folder:
        pile = Pile(Path(folder))
        parts = []
        for look in looks.looks(source, rules):
            pile.add(look.sketches)
            parts.append((look.passed, look.held_out, look.texts, look.labels))
        passed, held_out, texts, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
        first = _firsts(texts, passed)
        same = first != np.arange(len(first))
        if rules.settings.duplicate_similarity is not None:
            near = pile.repeated(passed & ~same, rules.settings.duplicate_similarity)
            first = near[first]
        pile.close()
    return Known(passed, held_out, labels, first, same)


def _firsts(texts: Hashes, passed: Flags) -> Places:
    """For each row the first that passed with the same text, else itself."""
    first = np.arange(len(texts))
    places = np.flatnonzero(passed)
    _, begins, inverse = np.unique(texts[places], return_index=True, return_inverse=True)
    first[places] = places[begins[inverse]]
    return first


def _common(known: Known, settings: Curate) -> dict[int, int]:
    """The labels that too many examples have, and how many may."""
    if settings.label_share is None:
        return {}
    kept = known.passed & (known.first == np.arange(len(known.first))) & (known.labels != 0)
    labels, counts = np.unique(known.labels[kept], return_counts=True)
    most = max(1, int(settings.label_share * kept.sum()))
    return dict.fromkeys(labels[counts > most].tolist(), most)


def _shards(source: Artifact) -> Iterator[list[Row]]:
    manifest = source.manifest()
    assert manifest is not None
    for shard in manifest["shards"]:
        if RECORDS in shard["files"]:
            yield source.read(shard["files"][RECORDS]["path"]).select(EXAMPLE.names).to_pylist()


def _reject(row: Row, reason: str, detail: str) -> passing.Passed:
    text = f"{row['query']}\n{row['positive']}"
    return passing.reject(row["id"], row["parent_id"], CURATED_EXAMPLES, reason, detail, text, row["kind"])
