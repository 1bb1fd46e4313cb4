"""Turn the scores that a judge gave a training's rows into what the loss learns from, and refuse scores of no use.

Every judge has a scale of its own: cosines lie between -1 and 1, a cross-encoder's logits between -11 and 11. Scores
are therefore divided by the judge's standard deviation within a row, over all rows. Listwise KL multiplies them by
that of the embedder's own logits before training (logit_spread.py): the judge teaches an order, and neither more nor
less contrast. MarginMSE takes scores as they are. A row's weight is the probability that the judge gives the positive
among the row's candidates, over its mean of all rows with negatives.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from speed_ray.errors import UserError
from speed_ray.recipes.training_settings import Embedder
from speed_ray.records import JudgeScores
from speed_ray.training import plan
from speed_ray.training.plan import TrainingPlan

SCORES = "scores"  # the column
MAX_EXPONENT = 700.0  # of a float64
OTHER_WAYS = "Name another judge as embedder.judge, or set embedder.loss: infonce and embedder.weight_by_score: false."

Floats = np.ndarray[Any, np.dtype[np.float64]]
RowIndices = np.ndarray[Any, np.dtype[np.int64]]


class Target(NamedTuple):
    """Hold what is learnt of one row: the judge's scores of positives and negatives, and the row's weight."""

    scores: tuple[float, ...]
    weight: float


NO_TARGET = Target((), 1.0)  # of a row without scores


@dataclass(frozen=True)
class JudgeScale:
    """Makes targets of a judge's scores; the same for all rows of a training."""

    judge: str
    unit: float  # the difference of two scores that weighs as one logit
    mean_share: float  # of the positives among a row's candidates, over all rows with negatives
    is_raw: bool  # a target holds scores, not logits
    weighs_rows: bool
    spread: float = 1.0  # what the scores' standard deviation within a row is as logits

    def target(self, scores: Sequence[JudgeScores]) -> Target:
        """Return the target of a row with these scores."""
        found = next(each for each in scores if each["judge"] == self.judge)
        positives = [found["positive"], *found["further_positives"]]
        values = [*positives, *found["negatives"]]
        logits = [value / self.unit for value in values]
        odds = [math.exp(min(logit - logits[0], MAX_EXPONENT)) for logit in logits]
        share = sum(odds[: len(positives)]) / sum(odds)
        weight = share / self.mean_share if self.weighs_rows and found["negatives"] else 1.0
        return Target(tuple(values if self.is_raw else (logit * self.spread for logit in logits)), weight)


class _Candidates(NamedTuple):
    """Hold a judge's scores of the candidates of n rows, and the row of each.

    First come the rows' positives, then their further ones, `positives` in all, then all negatives.
    """

    scores: Floats
    rows: RowIndices
    row_count: int  # n
    positives: int

    @property
    def leads(self) -> Floats:
        """Return each candidate's score less that of its row's positive: of a positive, exactly 0."""
        return self.scores - self.scores[: self.row_count][self.rows]


def read_scale(training: TrainingPlan) -> JudgeScale | None:
    """Read the scores that a training learns from; None where it learns from none. Raises as `measure_scale` does."""
    settings = training.settings
    if not isinstance(settings, Embedder) or not settings.learns_from_scores:
        return None
    artifact = plan.finished_training_data(training)
    paths = [file.path for file in artifact.record_files().values()]
    return measure_scale(artifact.where, (plan.read_training_rows(artifact, path) for path in paths), settings)


def measure_scale(where: str, tables: Iterable[pa.Table], settings: Embedder) -> JudgeScale:
    """Read a judge's scores of all rows to train on; `where` names their artifact, for messages.

    Raises UserError where scores are missing, are no numbers, or teach nothing.
    """
    judge, parts = settings.judge, []
    for table in tables:
        judge = judge or _only_judge(where, table)
        if len(table):
            parts.append(_read_candidates(where, table, judge or ""))
    assert judge and parts, "a set without a row is not trained on"
    unit = _deviation_within_rows(parts) * settings.teacher_temperature
    if not unit:
        raise UserError(
            f"{where}: the judge {judge!r} gives all candidates of a query one score (the first query's have "
            f"{parts[0].scores[0]:g}), so nothing can be learnt from it.\n{OTHER_WAYS}"
        )
    if settings.loss == "margin_mse":
        _refuse_probabilities(where, judge, parts, settings.temperature)
    return JudgeScale(judge, unit, _mean_share(parts, unit), settings.loss == "margin_mse", settings.weight_by_score)


def _only_judge(where: str, table: pa.Table) -> str | None:
    judges = _judges(table)
    if len(judges) > 1:
        raise UserError(f"embedder.judge: {where} was scored by {', '.join(judges)}. Name the one to learn from.")
    return judges[0] if judges else None


def _judges(table: pa.Table) -> list[str]:
    given = pc.list_flatten(table[SCORES].combine_chunks())
    return sorted(pc.struct_field(given, "judge").unique().to_pylist())


def _read_candidates(where: str, table: pa.Table, judge: str) -> _Candidates:
    """Read one judge's scores of a table's rows. Raises UserError for a row without them."""
    lists = table[SCORES].combine_chunks()
    given, rows = pc.list_flatten(lists), pc.list_parent_indices(lists)
    is_judges = pc.equal(pc.struct_field(given, "judge"), judge)
    times = np.bincount(rows.filter(is_judges).to_numpy(), minlength=len(table))
    _refuse_rows(where, table, times != 1, f"must have scores of {judge!r} once; there are {_judges(table)}")
    given = given.filter(is_judges)
    scores, indices = [pc.struct_field(given, "positive").to_numpy()], [np.arange(len(table))]
    for column in ("further_positives", "negatives"):
        values = pc.struct_field(given, column)
        lengths = pc.list_value_length(values).to_numpy()
        wanted = pc.list_value_length(table[column].combine_chunks()).to_numpy()
        said = column.replace("_", " ")
        _refuse_rows(where, table, lengths != wanted, f"must have a score of {judge!r} for each of its {said}")
        scores.append(pc.list_flatten(values).to_numpy())
        indices.append(np.repeat(np.arange(len(table)), lengths))
    return _finite(where, table, judge, scores, indices)


def _finite(where: str, table: pa.Table, judge: str, parts: list[Floats], rows: list[RowIndices]) -> _Candidates:
    """Join the scores of positives, further positives and negatives. Raises UserError for one that is no number."""
    scores, indices = np.concatenate(parts), np.concatenate(rows)
    broken = np.bincount(indices[~np.isfinite(scores)], minlength=len(table)) > 0
    _refuse_rows(where, table, broken, f"has a score of {judge!r} that is no finite number")
    return _Candidates(scores, indices, len(table), len(scores) - len(parts[-1]))


def _refuse_rows(where: str, table: pa.Table, are_wrong: np.ndarray[Any, Any], problem: str) -> None:
    if wrong := np.flatnonzero(are_wrong).tolist():
        more = f" (and {len(wrong) - 1:,} more of its shard)" if len(wrong) > 1 else ""
        raise UserError(f"{where}: row {table['id'][wrong[0]]}{more} {problem}.\n{OTHER_WAYS}")


def _deviation_within_rows(parts: Sequence[_Candidates]) -> float:
    """Compute the standard deviation of scores about their row's mean; 0 where no row has two different ones."""
    squares, degrees = 0.0, 0
    for part in parts:
        sums, sizes = np.bincount(part.rows, part.leads), np.bincount(part.rows)
        squares += float(np.square(part.leads).sum() - (np.square(sums) / sizes).sum())
        degrees += len(part.scores) - part.row_count
    return math.sqrt(squares / degrees) if degrees else 0.0


def _mean_share(parts: Sequence[_Candidates], unit: float) -> float:
    """Compute the mean probability of the positives among a row's candidates, over rows with negatives."""
    shares = []
    for part in parts:
        odds = np.exp(np.minimum(part.leads / unit, MAX_EXPONENT))
        of_positives = np.bincount(part.rows[: part.positives], odds[: part.positives])
        has_negatives = np.bincount(part.rows[part.positives :], minlength=part.row_count) > 0
        shares.append((of_positives / np.bincount(part.rows, odds))[has_negatives])
    return float(np.concatenate(shares).mean())


def _refuse_probabilities(where: str, judge: str, parts: Sequence[_Candidates], temperature: float) -> None:
    """Raise UserError for cosines and probabilities, whose margins are no match for those of logits."""
    low, high = min(part.scores.min() for part in parts), max(part.scores.max() for part in parts)
    if low >= -1 and high <= 1:
        raise UserError(
            f"embedder.loss: margin_mse holds margins of cosines over embedder.temperature, which reach "
            f"{2 / temperature:g}, against the judge's; the scores of {judge!r} in {where} lie between {low:.3g} and "
            f"{high:.3g}, as probabilities or cosines do.\nSet embedder.loss: kl, which takes any scale, or score the "
            "rows with logits: those of a cross-encoder without a sigmoid."
        )
