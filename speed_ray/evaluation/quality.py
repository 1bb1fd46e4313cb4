"""How good a run's examples are, read from storage alone: how many there are of what, and how much they differ.

All rows are counted. What is costly, or falls as rows grow more, is told of a sample of fixed size: the rows with the
lowest ids. Ids are hashes, so that this is a fair draw, the same one each time, and the same tasks' in a like run.
"""

import hashlib
import heapq
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from speed_ray.errors import UserError
from speed_ray.records import Row
from speed_ray.storage.run import EXAMPLES, Run
from speed_ray.storage.shards import RECORDS, Artifact, Counts
from speed_ray.text.language import other_language
from speed_ray.text.rules import is_plain

SAMPLE = 2_000  # rows of the sample
COMPARED = 200  # texts of which each is held against all others
COLUMNS = ["id", "kind", "topic", "language", "instruction", "query", "positive", "negatives"]
BUCKETS = (8, 16, 32, 64, 128, 256, 512)  # words up to which a text falls into a bucket; one more holds the rest
WORD = re.compile(r"\w+")
MISSED = 0.1  # for a length of which two texts share nothing: as nltk's first smoothing has it

Histogram = list[int]  # len(BUCKETS) + 1 counts


@dataclass(frozen=True)
class Quality:
    """What was found. Shares are of 1."""

    artifact: str
    planned: int
    counts: Counts  # of planned rows: accepted, rejected and why
    records: int
    languages: dict[str, int]  # as they were asked for
    same: int  # rows whose query and positive another row had before, but for case and spaces
    same_query: int
    words: dict[str, dict[str, Histogram]]  # by kind, then "query", "positive", "negative"
    sample: int
    mistaken: float  # share of the sample's positives that are clearly in another language than was asked for
    distinct: dict[int, float]  # different n-grams of all n-grams of the sample, for n = 1 and 2
    self_bleu: float  # how much of a text others say too: 1 is all of it

    @property
    def yielded(self) -> float:
        """Accepted of planned rows."""
        return self.counts.accepted / self.planned if self.planned else 0.0


def measure_quality(run: Run, name: str = EXAMPLES) -> Quality:
    """Read the committed examples of an artifact, finished or not. Raises UserError where there are none."""
    artifact = run.artifact(name)
    plan = artifact.plan()
    if plan is None:
        run.recipe()  # says so, when the folder is no run
        raise UserError(f"{artifact.where} was not begun yet. See what there is with: speed-ray status {run.uri}")
    languages: Counter[str] = Counter()
    words: dict[str, dict[str, Histogram]] = defaultdict(dict)
    pairs, queries, records = set(), set(), 0
    for row in example_rows(artifact):
        records += 1
        languages[row["language"]] += 1
        pairs.add(_hash(row["query"], row["positive"]))
        queries.add(_hash(row["query"]))
        for side, text in _sides(row):
            words[row["kind"]].setdefault(side, [0] * (len(BUCKETS) + 1))[_bucket(text)] += 1
    if not records:
        raise UserError(f"{artifact.where} holds no example yet. See why with: speed-ray status {run.uri}")
    drawn = sample_rows(artifact)
    texts = [WORD.findall(f"{row['query']} {row['positive']}".lower()) for row in drawn]
    return Quality(
        artifact=name,
        planned=plan.rows,
        counts=sum((commit.counts for commit in artifact.commits()), Counts()),
        records=records,
        languages=dict(languages),
        same=records - len(pairs),
        same_query=records - len(queries),
        words=dict(words),
        sample=len(drawn),
        mistaken=sum(other_language(row["positive"], row["language"]) is not None for row in drawn) / len(drawn),
        distinct={n: distinct_n(texts, n) for n in (1, 2)},
        self_bleu=self_bleu(texts[:COMPARED]),
    )


def example_rows(artifact: Artifact) -> Iterator[Row]:
    """All committed examples, a shard at a time in memory. Raises UserError for an artifact of something else."""
    for commit in artifact.commits():
        if RECORDS in commit.files:
            table = artifact.read(commit.files[RECORDS].path)
            if missing := set(COLUMNS) - set(table.column_names):
                raise UserError(f"{artifact.where} holds no examples: its rows have no {', '.join(sorted(missing))}.")
            yield from table.select(COLUMNS).to_pylist()


def sample_rows(artifact: Artifact, size: int = SAMPLE) -> list[Row]:
    """The examples with the lowest ids, in their order."""
    return heapq.nsmallest(size, example_rows(artifact), key=lambda row: str(row["id"]))


def distinct_n(texts: Sequence[Sequence[str]], n: int) -> float:
    """Different n-grams of all n-grams: 1 where nothing is said twice."""
    counted = Counter(gram for text in texts for gram in _grams(text, n))
    return len(counted) / counted.total() if counted else 0.0


def self_bleu(texts: Sequence[Sequence[str]]) -> float:
    """The mean BLEU-4 of each text with all others as its references; 0 where there are no two texts."""
    if len(texts) < 2:
        return 0.0
    counts = [[Counter(_grams(text, n)) for text in texts] for n in range(1, 5)]
    most = [_two_highest(of_n) for of_n in counts]
    lengths = [len(text) for text in texts]
    return sum(_bleu(place, counts, most, lengths) for place in range(len(texts))) / len(texts)


def _bleu(
    place: int,
    counts: list[list[Counter[tuple[str, ...]]]],
    most: list[dict[tuple[str, ...], list[tuple[int, int]]]],
    lengths: list[int],
) -> float:
    """BLEU-4 of one text: shared n-grams for n = 1 to 4, in a geometric mean, less for one shorter than the others."""
    length = lengths[place]
    logs = []
    for own, highest in zip((of_n[place] for of_n in counts), most, strict=True):
        shared = sum(min(count, _elsewhere(highest[gram], place)) for gram, count in own.items())
        if not own:
            break  # a text of three words has no four in a row
        logs.append(math.log(max(shared, MISSED) / own.total()))
    if not logs:
        return 0.0
    nearest = min((abs(other - length), other) for at, other in enumerate(lengths) if at != place)[1]
    return math.exp(min(0.0, 1 - nearest / length) + sum(logs) / len(logs))


def _two_highest(counts: list[Counter[tuple[str, ...]]]) -> dict[tuple[str, ...], list[tuple[int, int]]]:
    """How often an n-gram is said in one text at most, and which text that is; and in the one that comes next."""
    found: dict[tuple[str, ...], list[tuple[int, int]]] = defaultdict(list)
    for place, counter in enumerate(counts):
        for gram, count in counter.items():
            found[gram] = sorted([*found[gram], (count, place)], reverse=True)[:2]
    return found


def _elsewhere(highest: list[tuple[int, int]], place: int) -> int:
    return next((count for count, at in highest if at != place), 0)


def _grams(text: Sequence[str], n: int) -> Iterator[tuple[str, ...]]:
    return zip(*(islice(text, start, None) for start in range(n)), strict=False)


def _sides(row: Row) -> Iterator[tuple[str, str]]:
    yield "query", row["query"]
    yield "positive", row["positive"]
    yield from (("negative", text) for text in row["negatives"])


def _bucket(text: str) -> int:
    length = len(WORD.findall(text))
    return next((place for place, most in enumerate(BUCKETS) if length <= most), len(BUCKETS))


def _hash(*texts: str) -> bytes:
    """Eight bytes for a text, so that a million of them are told apart in little memory."""
    return hashlib.blake2b("\0".join(map(is_plain, texts)).encode(), digest_size=8).digest()
