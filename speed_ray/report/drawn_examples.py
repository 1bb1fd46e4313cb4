"""Draw examples of a run: shards at even distances, so that a page's numbers cost the same for any number of rows."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

from speed_ray.records import Row
from speed_ray.report.funnel import Leg
from speed_ray.report.shown_text import most, shown_text
from speed_ray.report.unreadable import Faults
from speed_ray.storage.run import OF_EXAMPLES
from speed_ray.storage.shards import RECORDS

ENOUGH = 20_000  # rows: up to so many all are read, of more one shard in n
KINDS, TOPICS = 12, 12  # that the treemap tells apart; topics of each kind


@dataclass(frozen=True)
class DrawnExamples:
    """Holds rows of one artifact, each with its place there: from 0 for the first shard to 1."""

    leg: Leg
    one_shard_in: int
    rows: Sequence[tuple[Row, float]]


def draw_examples(legs: Sequence[Leg], faults: Faults) -> DrawnExamples | None:
    """Draw rows of the last artifact of examples that has any; None before there is one."""
    by_name = {leg.name: leg for leg in legs if leg.standing.counts.records}
    leg = next((by_name[name] for name in OF_EXAMPLES if name in by_name), None)
    if leg is None:
        return None
    one_shard_in = shards_apart(leg)
    rows: list[tuple[Row, float]] = []
    for number, commit in list(enumerate(leg.commits))[::one_shard_in]:
        if RECORDS in commit.files:
            path = commit.files[RECORDS].path
            table = faults.read(f"examples of {leg.name}/{path}", None, leg.artifact.read, path)
            if table is not None:
                rows += [(row, number / len(leg.commits)) for row in table.to_pylist()]
    return DrawnExamples(leg, one_shard_in, rows)


def shards_apart(leg: Leg) -> int:
    """Return of how many shards one is enough."""
    return max(1, -(-leg.standing.counts.records // ENOUGH))


def choose_few(drawn: DrawnExamples, number: int) -> list[tuple[Row, float]]:
    """Choose rows to show: of each kind as many as may be, those with the lowest ids."""
    by_kind = defaultdict(list)
    for row, place in sorted(drawn.rows, key=lambda pair: str(pair[0]["id"])):
        by_kind[row["kind"]].append((row, place))
    return [pair for pair in chain.from_iterable(zip_longest(*by_kind.values())) if pair][:number]


def count_topics(drawn: DrawnExamples) -> dict[str, dict[str, int]]:
    """Count rows by kind and the first part of their topic; of documents, which have none, by language."""
    counted: dict[str, Counter[str]] = defaultdict(Counter)
    for row, _ in drawn.rows:
        counted[row["kind"]][row["topic"].partition("/")[0] or row["language"]] += 1
    kinds = sorted(counted, key=lambda kind: (-counted[kind].total(), kind))[:KINDS]
    return {shown_text(kind): dict(most(counted[kind], TOPICS)) for kind in kinds}
