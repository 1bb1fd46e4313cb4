"""Numbers about examples that can be told by hand, and those of a small run."""

import math
from collections import Counter

import numpy as np
import pytest

from speed_ray.console import quality_report
from speed_ray.errors import UserError
from speed_ray.evaluation import quality
from speed_ray.records import EXAMPLE
from speed_ray.stages import driver_stage
from speed_ray.storage.run import TASKS
from speed_ray.storage.shard_plan import Plan


def example(number, query="a lamp", positive="a light", negatives=(), **more):
    row_id = f"{number:032x}"
    texts = {"query": query, "positive": positive, "negatives": list(negatives)}
    named = {"id": row_id, "row_id": row_id, "parent_id": "-", "kind": "sts", "topic": "t", "language": "English"}
    return {**named, "instruction": "Find it", **texts, "model": "m", **more}


@pytest.fixture
def published(run):
    """A run whose examples are these, each of "" being a reject."""

    def publish(*rows):
        passed = [
            driver_stage.RowResult(row["row_id"], row, None)
            if row["query"]
            else driver_stage.reject(row["row_id"], "-", "examples", "not_json", "", "", "sts")
            for row in rows
        ]
        plan = Plan("examples", len(rows), shard_rows=2, variants=("",))
        driver_stage.publish_rows(run.artifact("examples"), plan, EXAMPLE, iter(passed))
        return run

    return publish


def test_yield_and_reasons(published):
    found = quality.measure_quality(
        published(example(1), example(2, query=""), example(3, query="x"), example(4, query=""))
    )
    assert (found.planned, found.records, found.yielded) == (4, 2, 0.5)
    assert found.counts.reasons == {"not_json": 2} and found.counts.kinds == {"sts": 2}


def test_duplicates_differ_in_case_and_spaces_alone(published):
    rows = [example(1), example(2, query="A  Lamp"), example(3, positive="a torch"), example(4, query="a dog")]
    found = quality.measure_quality(published(*rows))
    assert (found.duplicates, found.duplicate_queries) == (1, 2)


def test_lengths_are_counted_by_kind_and_side(published):
    rows = [example(1, query="one two", positive="w " * 8, negatives=["w " * 9]), example(2, positive="w " * 600)]
    words = quality.measure_quality(published(*rows)).words["sts"]
    assert words["query"] == [2, 0, 0, 0, 0, 0, 0, 0]
    assert words["positive"] == [1, 0, 0, 0, 0, 0, 0, 1] and words["negative"] == [0, 1, 0, 0, 0, 0, 0, 0]


def test_languages_as_asked_for_and_as_written(published):
    german = "Die kleine Lampe auf dem Tisch summt die ganze Nacht, und niemand im Haus kann dabei schlafen."
    rows = [example(1), example(2, positive=german), example(3, positive=german, language="German")]
    found = quality.measure_quality(published(*rows))
    assert found.languages == {"English": 2, "German": 1} and found.other_language == pytest.approx(1 / 3)


def test_the_sample_is_the_same_in_whatever_order_rows_come(published):
    rows = [example(number, query=f"query {number}") for number in (5, 3, 9, 1, 7)]
    artifact = published(*rows).artifact("examples")
    assert [row["query"] for row in quality.sample_rows(artifact, 3)] == ["query 1", "query 3", "query 5"]


def test_distinct_counts_what_is_said_for_the_first_time():
    assert quality.distinct_n([["a", "b"], ["a", "b", "c"]], 1) == pytest.approx(3 / 5)
    assert quality.distinct_n([["a", "b"], ["a", "b", "c"]], 2) == pytest.approx(2 / 3)
    assert quality.distinct_n([[], ["a"]], 2) == 0.0


def test_self_bleu_of_texts_alike_and_unlike():
    text = ["the", "lamp", "on", "the", "table", "hums", "at", "night"]
    assert quality.self_bleu([text, text]) == pytest.approx(1.0)
    assert quality.self_bleu([text, ["nobody", "sleeps", "while", "dogs", "bark", "outside", "my", "house"]]) < 0.05
    assert quality.self_bleu([text]) == 0.0 and quality.self_bleu([[], []]) == 0.0


def test_self_bleu_is_bleu_by_its_formula():
    texts = [["a", "b", "c", "d", "e", "f"], ["a", "b", "c", "d", "x", "y", "z"], ["e", "f", "a", "b", "b"]]
    assert quality.self_bleu(texts) == pytest.approx(np.mean([by_formula(texts, place) for place in range(3)]))


def by_formula(texts, place):
    """BLEU-4 written down as Papineni et al. have it, with nltk's first smoothing."""
    text, others = texts[place], [other for at, other in enumerate(texts) if at != place]
    logs = []
    for n in range(1, 5):
        counted = [Counter(tuple(t[i : i + n]) for i in range(len(t) - n + 1)) for t in (text, *others)]
        shared = sum(min(count, max(other[gram] for other in counted[1:])) for gram, count in counted[0].items())
        logs.append(math.log((shared or 0.1) / counted[0].total()))
    closest = min((abs(len(other) - len(text)), len(other)) for other in others)[1]
    return (math.exp(1 - closest / len(text)) if closest > len(text) else 1) * math.exp(sum(logs) / 4)


def test_what_holds_no_examples_is_said(alignment, run):
    with pytest.raises(UserError, match="tasks holds no examples: its rows have no"):
        quality.measure_quality(alignment.run, TASKS)
    with pytest.raises(UserError, match="is not a run"):
        quality.measure_quality(run)


def test_examples_of_the_miniature_world(alignment):
    found = quality.measure_quality(alignment.run)
    assert found.planned == 46 and found.records == found.counts.accepted == found.sample
    assert set(found.words) == {"classification", "sts", "retrieval", "matching_short", "matching_long"}
    assert sum(map(sum, (sides["query"] for sides in found.words.values()))) == found.records
    assert 0 < found.distinct[1] < found.distinct[2] <= 1 and 0 < found.self_bleu < 1


def by_word(texts, _):
    return np.array([[float(word in text) for word in ("lamp", "dog", "milk")] for text in texts], np.float32)


def test_margins_by_hand():
    rows = [
        example(1, "lamp", "lamp", ["dog"]),  # 1 - 0
        example(2, "dog", "lamp", ["dog"]),  # 0 - 1
        example(3, "lamp", "lamp dog", ["milk"]),  # 1 / sqrt(2) - 0
        example(4, "milk", "milk"),
    ]
    found = quality.measure_margins(by_word, rows, instructed=False)
    assert (found.examples, found.positive_share) == (3, pytest.approx(2 / 3))
    assert "; 1 examples without a negative left out" in str(quality_report.margin_tables(found))
    assert found.mean == pytest.approx(math.sqrt(0.5) / 3)
    assert found.diversity == pytest.approx(1 - 1 / 3), "of three pairs of queries one is the same"


def test_margins_read_queries_with_their_instruction():
    seen = []

    def embed(texts, side):
        seen.extend(texts)
        return by_word(texts, side)

    quality.measure_margins(embed, [example(1, "lamp", "lamp", ["dog"])], instructed=True)
    assert seen == ["Instruct: Find it\nQuery: lamp", "lamp", "dog"]


def test_no_margin_without_negatives():
    with pytest.raises(UserError, match="no margin to measure"):
        quality.measure_margins(by_word, [example(1)], instructed=False)
