"""What an embedder makes of examples: how much nearer a query is to its positive than to its negative."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from speed_ray.errors import UserError
from speed_ray.evaluation.metrics import Embed, Vectors, unit
from speed_ray.records import Row
from speed_ray.training.contrastive.encoder import format_query


@dataclass(frozen=True)
class Margins:
    """Cosines over the examples that have a negative, and how unlike queries are."""

    examples: int
    mean: float  # of cosine(query, positive) - cosine(query, negative)
    lowest: float  # a tenth of the margins is below
    highest: float  # a tenth is above
    right: float  # share of positives that are nearer than the negative
    diversity: float  # one minus the mean cosine of two different queries


def measure_margins(embed: Embed, rows: Sequence[Row], instructed: bool) -> Margins:
    """Embed a sample of examples; `embed` puts nothing before a query. Raises UserError where none has a negative."""
    with_negative = [row for row in rows if row["negatives"]]
    if not with_negative:
        raise UserError("None of these examples has a hard negative, so there is no margin to measure.")
    read = [format_query(row["instruction"] if instructed else "", row["query"]) for row in with_negative]
    queries = unit(embed(read, "query"))  # with the instruction of each
    positives, negatives = (
        unit(embed(texts, "document"))
        for texts in ([row["positive"] for row in with_negative], [row["negatives"][0] for row in with_negative])
    )
    found = (queries * positives).sum(1) - (queries * negatives).sum(1)
    lowest, highest = np.quantile(found, (0.1, 0.9))
    return Margins(
        examples=len(found),
        mean=float(found.mean()),
        lowest=float(lowest),
        highest=float(highest),
        right=float((found > 0).mean()),
        diversity=_diversity(queries),
    )


def _diversity(vectors: Vectors) -> float:
    count = len(vectors)
    if count < 2:
        return 0.0
    together = float(np.square(vectors.sum(0)).sum()) - count  # the sum of all cosines but those with oneself
    return 1 - together / (count * (count - 1))
