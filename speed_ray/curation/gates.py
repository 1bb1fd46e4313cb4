"""Compute the numbers by which gates refuse examples that teach nothing, and compare them with the recipe's bounds.

relatedness   standard deviations of the positive's cosine with the query above those of other texts, by the reference
order         by how much the deciding judge puts the positive above its negative; above the last one where they are
              mined, because those above the positive are left out
meaning       the same by the reference's cosine, in the place of order where texts are likenesses (sts): words cannot
              tell them, all of their texts share some
label         other examples of its task that get a classification's label, see label_gate.py
copied        share of the query's or the positive's word triples that the prompt has
fluency       share of the corpus's texts that the generator's base model finds less likely than the query, or than
              the positive where no person wrote it: of as many tokens, see fluency_gate.py
logprob       the mean log-probability of these tokens

A gate has no number where there is nothing to tell by: no reference, no negative, too few other texts. Of two labels
none says which is right: they are as near to a text as their words are.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, get_args

from speed_ray import kinds
from speed_ray.curation.kind_sides import negatives_are_mined
from speed_ray.curation.mixture import mixed_scores, z_scores
from speed_ray.recipes.score_settings import MIXTURE, REFERENCE, Gates
from speed_ray.records import PairScoresRow

Gate = Literal["relatedness", "order", "meaning", "label", "copied", "fluency", "logprob"]
GATES: tuple[Gate, ...] = get_args(Gate)
FEWEST_OTHERS = 30  # texts, of which fewer have no deviation to speak of: of n none lies above the root of n - 1

Candidates = Mapping[str, Sequence[float]]  # by judge: the scores of a row's positive, negatives and neighbours


class Numbers(NamedTuple):
    """Hold the number of each gate that has one."""

    relatedness: float | None
    order: float | None
    meaning: float | None
    copied: float
    label: int | None = None
    fluency: float | None = None
    logprob: float | None = None


def all_scores(row: PairScoresRow, weight: float) -> dict[str, Sequence[float]]:
    """Return the scores of a row's candidates by each judge, the mixture among them where it can be had."""
    found: dict[str, Sequence[float]] = {each["judge"]: each["scores"] for each in row["judged"]}
    return found | ({MIXTURE: mixed_scores(row["judged"], weight)} if REFERENCE in found else {})


def order_gate(kind: str) -> Gate | None:
    """Name the gate that tells whether a kind's texts are in order; None where they are labels."""
    found = kinds.load_kind(kind)
    if found.positive_is_label:
        return None
    return "meaning" if found.shares_words else "order"


def leads(kind: str, scores: Candidates, judge: str) -> Sequence[float] | None:
    """Return the scores that say which of a row's candidates is the better one; None where nobody can tell."""
    gate = order_gate(kind)
    return None if gate is None else scores.get(REFERENCE) if gate == "meaning" else scores.get(judge)


def gate_numbers(
    row: PairScoresRow, scores: Candidates, judge: str, negatives: int, grounded: bool, positive: int = 0
) -> Numbers:
    """Return the gates' numbers of a row with so many negatives, when the candidate at `positive` is its positive."""
    kind, by = row["kind"], leads(row["kind"], scores, judge)
    last = min if negatives_are_mined(kind, grounded) else max
    lead = by[positive] - last(by[1 : 1 + negatives]) if by and negatives else None
    gate = order_gate(kind)
    return Numbers(
        relatedness=_relatedness(row, positive),
        order=lead if gate == "order" else None,
        meaning=lead if gate == "meaning" else None,
        copied=row["copied"],
    )


def _relatedness(row: PairScoresRow, positive: int) -> float | None:
    reference = next((each for each in row["judged"] if each["judge"] == REFERENCE), None)
    if reference is None or not reference["deviation"] or row["background"] < FEWEST_OTHERS:
        return None
    return float(z_scores(reference["scores"][positive], reference["mean"], reference["deviation"]))


def is_refused(gate: Gate, number: float, bound: float) -> bool:
    """Tell if a gate refuses a row with this number."""
    return number >= bound if gate == "copied" else number < bound


def refusal(numbers: Numbers, bounds: Gates) -> tuple[str, str] | None:
    """Return (reason, detail) of the first gate that refuses a row, else None."""
    for gate in GATES:
        number, bound = getattr(numbers, gate), getattr(bounds, gate)
        if number is not None and bound is not None and is_refused(gate, number, bound):
            return f"gate_{gate}", f"{_SAID[gate].format(number)}; score.gates.{gate} is {bound:g}"
    return None


_SAID: dict[Gate, str] = {
    "relatedness": "the positive's cosine with the query lies {:+.2f} standard deviations above those of other texts",
    "order": "the deciding judge puts the positive {:+.3f} above its negative, or above the last of several",
    "meaning": "the positive's cosine lies {:+.3f} above the negative's",
    "label": "{:d} other examples of its task get its label",
    "copied": "{:.0%} of a text's word triples stand in its prompt",
    "fluency": "{:.1%} of the corpus's texts are less likely than a text of so many tokens",
    "logprob": "the tokens of a text have a mean log-probability of {:.2f} nats",
}
