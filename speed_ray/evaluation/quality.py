"""Measure a run's examples: yield, repetition, diversity, lengths and languages, and an embedder's margins.

All rows are counted. What is costly, or falls as rows grow more, is measured on a sample of fixed size: the rows with
the lowest ids. Ids are hashes, so that this is a fair draw, the same one each time, and the same tasks' in a like run.
"""

import hashlib
import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from speed_ray.errors import UserError
from speed_ray.records import ExampleRow, format_query
from speed_ray.storage.run import EXAMPLES, Run
from speed_ray.storage.shards import RECORDS, Artifact, Counts
from speed_ray.text.language import other_language
from speed_ray.text.rules import is_plain
from speed_ray.text.words import split_words

if TYPE_CHECKING:
    from speed_ray.evaluation.metrics import Embed

SAMPLE_ROWS = 2_000
SELF_BLEU_TEXTS = 200  # texts of which each is compared with all others
COLUMNS = ["id", "kind", "topic", "language", "instruction", "query", "positive", "negatives"]
BUCKETS = (8, 16, 32, 64, 128, 256, 512)  # words up to which a text falls into a bucket; one more holds the rest
SMOOTHING = 0.1  # the matches of an n for which a text shares no n-gram: nltk's first smoothing

Histogram = list[int]  # len(BUCKETS) + 1 counts


@dataclass(frozen=True)
class Quality:
    """Hold the figures of one artifact's examples. Shares are of 1."""

    artifact: str
    planned: int
    counts: Counts  # of planned rows: accepted, rejected and why
    records: int
    languages: dict[str, int]  # rows by the language that the prompt asked for
    duplicates: int  # rows whose query and positive another row had before, but for case and spaces
    duplicate_queries: int
    words: dict[str, dict[str, Histogram]]  # by kind, then "query", "positive", "negative"
    sample: int  # rows
    other_language: float  # share of the sample's positives that are clearly in another language than was asked for
    distinct: dict[int, float]  # distinct-n of the sample, for n = 1 and 2
    self_bleu: float  # of the first texts of the sample

    @property
    def yielded(self) -> float:
        """Divide the accepted rows by the planned ones."""
        return self.counts.accepted / self.planned if self.planned else 0.0


def measure_quality(run: Run, name: str = EXAMPLES, one_shard_in: int = 1) -> Quality:
    """Measure the committed examples of an artifact, finished or not. Raises UserError where there are none.

    Of a large run one shard in so many may do: counts of planned rows and rejects are those of all shards then too.
    """
    artifact = run.artifact(name)
    plan = artifact.plan()
    if plan is None:
        run.recipe()  # says so, when the folder is no run
        raise UserError(f"{artifact.where} was not begun yet. See what there is with: speed-ray status {run.uri}")
    languages: Counter[str] = Counter()
    words: dict[str, dict[str, Histogram]] = defaultdict(dict)
    pairs, queries, records = set(), set(), 0
    for row in example_rows(artifact, one_shard_in):
        records += 1
        languages[row["language"]] += 1
        pairs.add(_hash(row["query"], row["positive"]))
        queries.add(_hash(row["query"]))
        for side, text in _sides(row):
            words[row["kind"]].setdefault(side, [0] * (len(BUCKETS) + 1))[_bucket(text)] += 1
    if not records:
        raise UserError(f"{artifact.where} holds no example yet. See why with: speed-ray status {run.uri}")
    drawn = sample_rows(artifact, one_shard_in=one_shard_in)
    texts = [split_words(f"{row['query']} {row['positive']}") for row in drawn]
    return Quality(
        artifact=name,
        planned=plan.rows,
        counts=sum((commit.counts for commit in artifact.commits()), Counts()),
        records=records,
        languages=dict(languages),
        duplicates=records - len(pairs),
        duplicate_queries=records - len(queries),
        words=dict(words),
        sample=len(drawn),
        other_language=sum(other_language(row["positive"], row["language"]) is not None for row in drawn) / len(drawn),
        distinct={n: distinct_n(texts, n) for n in (1, 2)},
        self_bleu=self_bleu(texts[:SELF_BLEU_TEXTS]),
    )


def count_kept_reasons(revised_examples: Artifact) -> Counter[str]:
    """Count revised examples by `kept_because` ("": revised): the first `SAMPLE_ROWS`, or a few more."""
    counts: Counter[str] = Counter()
    for commit in revised_examples.commits():
        if RECORDS in commit.files:
            counts.update(revised_examples.read(commit.files[RECORDS].path)["kept_because"].to_pylist())
        if counts.total() >= SAMPLE_ROWS:
            break
    return counts


def example_rows(artifact: Artifact, one_shard_in: int = 1) -> Iterator[ExampleRow]:
    """Yield the committed examples, reading a shard at a time. Raises UserError for an artifact of something else."""
    for commit in islice(artifact.commits(), None, None, one_shard_in):
        if RECORDS in commit.files:
            table = artifact.read(commit.files[RECORDS].path)
            if missing := set(COLUMNS) - set(table.column_names):
                raise UserError(f"{artifact.where} holds no examples: its rows have no {', '.join(sorted(missing))}.")
            yield from table.select(COLUMNS).to_pylist()


def sample_rows(artifact: Artifact, size: int = SAMPLE_ROWS, one_shard_in: int = 1) -> list[ExampleRow]:
    """Return the examples with the lowest ids, in the order of their ids."""
    return heapq.nsmallest(size, example_rows(artifact, one_shard_in), key=lambda row: str(row["id"]))


def distinct_n(texts: Sequence[Sequence[str]], n: int) -> float:
    """Compute distinct-n: the share of different n-grams among all n-grams; 1 where none is repeated."""
    counted = Counter(gram for text in texts for gram in _grams(text, n))
    return len(counted) / counted.total() if counted else 0.0


def self_bleu(texts: Sequence[Sequence[str]]) -> float:
    """Compute the mean BLEU-4 of each text with all others as its references; 0 where there are no two texts."""
    if len(texts) < 2:
        return 0.0
    counts = [[Counter(_grams(text, n)) for text in texts] for n in range(1, 5)]
    most = [_two_highest(of_n) for of_n in counts]
    lengths = [len(text) for text in texts]
    return sum(_bleu(index, counts, most, lengths) for index in range(len(texts))) / len(texts)


def _bleu(
    index: int,
    counts: list[list[Counter[tuple[str, ...]]]],
    most: list[dict[tuple[str, ...], list[tuple[int, int]]]],
    lengths: list[int],
) -> float:
    """Compute BLEU-4 of one text: n-gram precisions for n = 1 to 4, their geometric mean, the brevity penalty."""
    length = lengths[index]
    logs = []
    for own, highest in zip((of_n[index] for of_n in counts), most, strict=True):
        shared = sum(min(count, _elsewhere(highest[gram], index)) for gram, count in own.items())
        if not own:
            break  # a text of three words has no four in a row
        logs.append(math.log(max(shared, SMOOTHING) / own.total()))
    if not logs:
        return 0.0
    nearest = min((abs(other - length), other) for other_index, other in enumerate(lengths) if other_index != index)[1]
    return math.exp(min(0.0, 1 - nearest / length) + sum(logs) / len(logs))


def _two_highest(counts: list[Counter[tuple[str, ...]]]) -> dict[tuple[str, ...], list[tuple[int, int]]]:
    """Find for each n-gram the two texts that have it most often, as (count, text)."""
    found: dict[tuple[str, ...], list[tuple[int, int]]] = defaultdict(list)
    for index, counter in enumerate(counts):
        for gram, count in counter.items():
            found[gram] = sorted([*found[gram], (count, index)], reverse=True)[:2]
    return found


def _elsewhere(highest: list[tuple[int, int]], index: int) -> int:
    return next((count for count, other_index in highest if other_index != index), 0)


def _grams(text: Sequence[str], n: int) -> Iterator[tuple[str, ...]]:
    return zip(*(islice(text, start, None) for start in range(n)), strict=False)


def _sides(row: ExampleRow) -> Iterator[tuple[str, str]]:
    yield "query", row["query"]
    yield "positive", row["positive"]
    yield from (("negative", text) for text in row["negatives"])


def _bucket(text: str) -> int:
    length = len(split_words(text))
    return next((bucket for bucket, most in enumerate(BUCKETS) if length <= most), len(BUCKETS))


def _hash(*texts: str) -> bytes:
    """Hash texts into 8 bytes, so that a set of a million of them stays small."""
    return hashlib.blake2b("\0".join(map(is_plain, texts)).encode(), digest_size=8).digest()


@dataclass(frozen=True)
class Margins:
    """Hold statistics of cosine(query, positive) - cosine(query, first negative), of the examples with a negative."""

    examples: int
    without_negative: int  # examples that are left out
    mean: float
    percentile_10: float
    percentile_90: float
    positive_share: float  # examples whose positive is nearer than the negative
    diversity: float  # one minus the mean cosine of two different queries


def measure_margins(embed: "Embed", rows: Sequence[ExampleRow], instructed: bool) -> Margins:
    """Embed examples and measure their margins; `embed` puts no prompt before a query.

    Raises UserError where no example has a negative.
    """
    from speed_ray.evaluation.metrics import unit  # brings scikit-learn

    sampled, rows = len(rows), [row for row in rows if row["negatives"]]
    if not rows:
        raise UserError("None of these examples has a hard negative, so there is no margin to measure.")
    queries = unit(
        embed([format_query(row["instruction"] if instructed else "", row["query"]) for row in rows], "query")
    )
    positives = unit(embed([row["positive"] for row in rows], "document"))
    negatives = unit(embed([row["negatives"][0] for row in rows], "document"))
    margins = (queries * positives).sum(1) - (queries * negatives).sum(1)
    low, high = np.quantile(margins, (0.1, 0.9))
    count = len(rows)
    others = float(np.square(queries.sum(0)).sum()) - count  # the sum of all cosines but those with oneself
    return Margins(
        examples=count,
        without_negative=sampled - count,
        mean=float(margins.mean()),
        percentile_10=float(low),
        percentile_90=float(high),
        positive_share=float((margins > 0).mean()),
        diversity=1 - others / (count * (count - 1)) if count > 1 else 0.0,
    )
