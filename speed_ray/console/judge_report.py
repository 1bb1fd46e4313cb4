"""Format what judges said of a run's pairs, how far they agree, and what gates would refuse at other bounds."""

from collections.abc import Iterator
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

from speed_ray.curation import gates
from speed_ray.curation.gates import GATES, Gate
from speed_ray.recipes.score_settings import MIXTURE
from speed_ray.storage.run import CURATED_EXAMPLES, PAIR_SCORES, SCORED_EXAMPLES, Run
from speed_ray.storage.shards import Artifact, Counts

if TYPE_CHECKING:
    from rich.table import Table

BOUNDS: dict[Gate, tuple[float, ...]] = {  # that are shown beside the recipe's own
    "relatedness": (0.0, 1.0, 1.5, 2.0, 3.0, 4.0),
    "order": (-1.0, -0.5, 0.0, 0.5, 1.0, 2.0),
    "meaning": (-0.1, -0.05, 0.0, 0.05, 0.1, 0.2),
    "label": (1, 2, 3, 5, 10, 20),
    "copied": (0.1, 0.2, 0.3, 0.5, 0.7, 0.9),
    "fluency": (0.002, 0.005, 0.01, 0.02, 0.05, 0.1),
    "logprob": (-8.0, -7.0, -6.0, -5.0, -4.0, -3.0),
}


def judge_lines(artifact: Artifact) -> list[str]:
    """Lines that say how far the judges of scored examples agree; none of another artifact, or before it has rows."""
    plan = artifact.plan() if artifact.name == SCORED_EXAMPLES else None
    counted = sum((commit.counts for commit in artifact.commits()), Counts()).judged if plan else {}
    if plan is None or not counted:
        return []
    names, lines = plan.identity["judges"], []
    if rows := counted.get("rows", 0):
        shares = ", ".join(f"{name} {counted.get(f'first/{name}', 0) / rows:.0%}" for name in names)
        lines.append(f"  positive put first, of {rows:,} rows with negatives: {shares}")
    for one, other in combinations(names, 2):
        lines += agreement_lines(counted, one, other)
    if MIXTURE in names:
        lines.append(f"  {_weighed(plan.identity['weights'])}")
    lines.append(
        f"  relabelled: {counted.get('relabelled', 0):,} positives; further positives: {counted.get('further', 0):,}; "
        f"mined negatives left out as likely right answers: {counted.get('dropped', 0):,}"
    )
    return lines


def agreement_lines(counted: dict[str, int], one: str, other: str) -> Iterator[str]:
    """Lines that say how far two judges agree, and warn where they mostly do not; none where nothing was compared."""
    pairs, rows = counted.get(f"pairs/{one}/{other}", 0), counted.get("rows", 0)
    if not pairs:
        return
    alike = counted.get(f"order/{one}/{other}", 0) / pairs
    of_rows = counted.get(f"alike/{one}/{other}", 0) / rows
    yield f"  {one} and {other}: {alike:.0%} of {pairs:,} pairs of texts in one order, {of_rows:.0%} of rows alike"
    if alike < 0.5:
        yield (
            f"  WARNING: {one} and {other} disagree on more than half of what they compare: one of them cannot judge\n"
            "  these texts. Look at rows with `show`, and leave that one out of score.judges in another --run folder."
        )


def _weighed(weights: dict[str, Any]) -> str:
    said = f"mixture: BM25 weighs {weights['bm25']:g}, the reference 1"
    if not weights["ndcg_at_10"]:
        return f"{said}: the usual weights, for {weights['queries']} held-out queries are too few to choose by"
    scores = ", ".join(f"{weight}: {score:.4f}" for weight, score in weights["ndcg_at_10"].items())
    return f"{said}, by {weights['queries']:,} held-out queries (nDCG@10 at {scores})"


class GateRefusals(NamedTuple):
    """Count the curated examples that a gate has a number for, and those that it would refuse at each bound."""

    gate: Gate
    numbers: int
    own: float | None  # the recipe's bound
    refused: dict[float, int]


def count_refusals(run: Run) -> list[GateRefusals]:
    """Count what each gate would refuse at other bounds; nothing before the curated examples are judged."""
    if run.artifact(SCORED_EXAMPLES).plan() is None or not _is_judged(run):
        return []
    recipe, numbers = run.recipe(), gate_numbers_of(run)
    assert recipe.score is not None, "scored examples hold it"
    found = []
    for gate in GATES:
        own = getattr(recipe.score.gates, gate)
        bounds = sorted({*BOUNDS[gate], *(() if own is None else (own,))})
        refused = {bound: sum(gates.is_refused(gate, each, bound) for each in numbers[gate]) for bound in bounds}
        found.append(GateRefusals(gate, len(numbers[gate]), own, refused))
    return found


def gate_table(run: Run) -> "Table | None":
    """Tabulate how many curated examples each gate would refuse at other bounds; None before they are judged."""
    counted = count_refusals(run)
    if not counted:
        return None
    from rich.table import Table

    table = Table("gate", "rows that have its number", "refused at each bound", title="Gates (score.gates)")
    for each in counted:
        refused = "   ".join(f"{'*' * (bound == each.own)}{bound:g}: {n:,}" for bound, n in each.refused.items())
        table.add_row(each.gate, f"{each.numbers:,}", refused)
    table.caption = "* the recipe's bound; a row that several gates would refuse counts for each"
    return table


def _is_judged(run: Run) -> bool:
    """Tell if what judges said is of the curated examples as they are."""
    curated, pair_scores = run.artifact(CURATED_EXAMPLES), run.artifact(PAIR_SCORES)
    if curated.manifest() is None or pair_scores.manifest() is None:
        return False
    plan = pair_scores.plan()
    return plan is not None and plan.identity["input"]["sha256"] == curated.records_digest()


def gate_numbers_of(run: Run) -> dict[Gate, list[float]]:
    """Compute every gate's numbers again from the judges' scores, which are kept also of rows that were refused."""
    from speed_ray.stages.language_models import read_said
    from speed_ray.stages.scored_examples import Decider, count_labels  # its libraries take a second to load

    recipe, plan = run.recipe(), run.artifact(SCORED_EXAMPLES).plan()
    assert recipe.score is not None and plan is not None, "scored examples hold both"
    curated, pair_scores = run.artifact(CURATED_EXAMPLES), run.artifact(PAIR_SCORES)
    weight, labels = plan.identity["weights"]["bm25"], count_labels(curated)
    decider = Decider(recipe.score, recipe.has_reference, recipe.is_grounded, weight, labels)
    found: dict[Gate, list[float]] = {gate: [] for gate in GATES}
    for row, judged, said in zip(curated.records(), pair_scores.records(), read_said(run, recipe), strict=True):
        numbers = decider.numbers(row, judged, said)
        for gate in GATES:
            if (number := getattr(numbers, gate)) is not None:
                found[gate].append(number)
    return found
