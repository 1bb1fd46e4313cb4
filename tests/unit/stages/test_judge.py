"""Verdicts: best and worst by place shown, never a default, and a judge that looks at the place is caught."""

import json
import random

import pytest

from speed_ray import kinds
from speed_ray.console import status
from speed_ray.engines.base import Reply, Sample
from speed_ray.engines.fake_text import fake_reply
from speed_ray.evaluation import position_bias
from speed_ray.miniature import teacher
from speed_ray.prompts.parse import parse_verdict, verdict_schema
from speed_ray.prompts.render import Prompts
from speed_ray.records import Rejected
from speed_ray.stages.judge import Judge
from speed_ray.stages.propose import Propose
from speed_ray.storage.planned_rows import Inputs, PlannedRow
from speed_ray.storage.run import CANDIDATES, VERDICTS


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"best": 1, "worst": 3, "reason": "it is"}', None),
        ('Sure: ```json\n{"reason": "it is", "best": 1.0, "worst": 3,}\n```', None),
        ("{'best': 1, 'worst': 3, 'reason': 'it is'}", None),
        ("the first", "not_json"),
        ('{"best": 1, "worst": 3, "reason": "it', "truncated"),
        ('{"best": 1, "reason": "it is"}', "missing_field"),
        ('{"best": 1, "worst": 3}', "missing_field"),
        ('{"best": 1, "worst": 3, "reason": " "}', "blank_field"),
        ('{"best": 1, "worst": 3, "reason": "it is", "middle": 2}', "extra_field"),
        ('{"best": 1, "best": 2, "worst": 3, "reason": "it is"}', "duplicate_field"),
        ('{"best": 2, "worst": 2, "reason": "it is"}', "best_is_worst"),
        ('{"best": 0, "worst": 3, "reason": "it is"}', "out_of_range"),
        ('{"best": 1, "worst": 4, "reason": "it is"}', "out_of_range"),
        ('{"best": -1, "worst": 3, "reason": "it is"}', "out_of_range"),
        ('{"best": 99999999999999999999999, "worst": 3, "reason": "it is"}', "out_of_range"),
        ('{"best": true, "worst": 3, "reason": "it is"}', "not_a_place"),
        ('{"best": "1", "worst": 3, "reason": "it is"}', "not_a_place"),
        ('{"best": 1.5, "worst": 3, "reason": "it is"}', "not_a_place"),
        ('{"best": 1e999, "worst": 3, "reason": "it is"}', "not_a_place"),
        ('{"best": NaN, "worst": 3, "reason": "it is"}', "not_a_place"),
        ('{"best": [1], "worst": 3, "reason": "it is"}', "not_a_place"),
        ('{"best": null, "worst": 3, "reason": "it is"}', "not_a_place"),
    ],
)
def test_a_verdict_is_read_or_rejected(text, reason):
    if reason is None:
        assert parse_verdict(text, 3, []) == (1, 3, "it is")
    else:
        with pytest.raises(Rejected) as rejected:
            parse_verdict(text, 3, [])
        assert rejected.value.reason == reason


@pytest.mark.parametrize("said", ["one or two sentences", "One or two sentences.", "...", "\u200b"])
def test_a_reason_is_one_of_the_judges_own(said):
    kind, rng = kinds.load_kind("sts"), random.Random(0)
    asked = Prompts().judge(kind, kind.slots(rng), "Bees", "", "English", ["{}", "{}", "{}"], rng)
    text = '{"best": 1, "worst": 3, "reason": "%s"}'
    for own in ("Its two sentences are one", "x"):
        assert parse_verdict(text % own, 3, asked)
    with pytest.raises(Rejected) as rejected:
        parse_verdict(text % said, 3, asked)
    assert rejected.value.reason in ("placeholder", "no_letters")


def test_an_invented_verdict_is_one():
    for seed in range(100):
        best, worst, _ = parse_verdict(fake_reply(verdict_schema(2), random.Random(seed), {}), 2, [])
        assert {best, worst} == {1, 2}


def test_chosen_and_rejected_are_the_candidates_that_stood_at_the_places_named(alignment):
    lists = {row["id"]: row for row in alignment.rows(CANDIDATES)}
    verdicts = alignment.rows(VERDICTS)
    assert len(verdicts) == 46 and any(row["order"] != sorted(row["order"]) for row in verdicts)
    for row in verdicts:
        judged = lists[row["parent_id"]]
        assert sorted(row["order"]) == list(range(len(judged["candidates"])))
        assert row["chosen"] == judged["candidates"][row["order"][row["best"] - 1]]
        assert row["rejected"] == judged["candidates"][row["order"][row["worst"] - 1]]
        assert row["messages"] == judged["messages"], "DPO asks as the generator was asked"


def test_the_scripted_judge_prefers_what_is_true(alignment):
    for row in alignment.rows(VERDICTS):
        scores = [teacher.score(row, json.loads(row[answer])) for answer in ("chosen", "rejected")]
        assert scores[0] > scores[1]


def test_another_order_changes_next_to_no_verdict(alignment):
    recipe = alignment.recipe
    inputs = Inputs(alignment.run.artifact(CANDIDATES), Judge(recipe).plan(alignment.run))
    rows = [row for shard in range(5) for row in inputs.of_shard(shard)]
    orders, verdicts = [], []
    for seed in (recipe.seed, recipe.seed + 1):
        stage = Judge(recipe.model_copy(update={"seed": seed}))
        records = []
        for row in rows:
            request = stage.request(row)
            text = teacher.answer(request.context, seed=0)
            records += stage.parse(row, request, Reply([Sample(text, "stop", 1)], 1, 0.0))
        orders.append([record["order"] for record in records])
        verdicts.append([(record["chosen"], record["rejected"]) for record in records])
    assert sum(one != other for one, other in zip(*orders, strict=True)) > len(rows) / 2
    assert sum(one != other for one, other in zip(*verdicts, strict=True)) < 0.05 * len(rows)


class AlwaysFirst:
    """A judge that never reads."""

    model, in_flight = "lazy", 8

    async def generate(self, request):
        return Reply([Sample('{"best": 1, "worst": 2, "reason": "The first is fine."}', "stop", 9)], 9, 0.1)


def test_one_candidate_is_a_reject_and_no_call(begin_alignment, weak):
    made = begin_alignment("propose.candidates=2", "propose.max_retries=0")
    junior = made.recipe.generator
    made.make(Propose(made.recipe, junior), weak)
    alone = [row["id"] for row in made.rows(CANDIDATES) if len(row["candidates"]) < 2]
    artifact = made.make(Judge(made.recipe))
    counts = artifact.manifest()["counts"]
    assert alone and counts["reasons"] == {"too_few_candidates": len(alone)}
    assert counts["calls"] == counts["accepted"] == len(made.rows(CANDIDATES)) - len(alone)


def test_a_judge_that_always_says_the_first_is_caught_by_status(begin_alignment, weak):
    made = begin_alignment()
    junior = made.recipe.generator
    made.make(Propose(made.recipe, junior), weak)
    made.make(Judge(made.recipe), AlwaysFirst())
    found = position_bias.count_positions(made.run.artifact(VERDICTS))
    assert found.bias == 1.0 and found.favourite == 1
    said = "\n".join(status.status_lines(made.run))
    assert "best by place shown: 1: 100% 2: 0%" in said and "WARNING: the judge prefers place 1" in said


def test_a_fair_judge_is_not_accused(alignment):
    assert "WARNING" not in "\n".join(status.status_lines(alignment.run))


def test_chance_is_what_a_judge_by_lot_comes_to():
    """Lists of 2 to 5: place 1 is there for all of them and 5 for a few, and none is a favourite for that."""
    for seed in range(50):
        rng = random.Random(seed)
        shown = [rng.choice((2, 3, 4, 5)) for _ in range(200)]
        found = position_bias.count_verdicts(shown, [rng.randint(1, n) for n in shown])
        assert not found.is_biased and found.bias < 0.15
        assert sum(found.chance) == pytest.approx(200) and sum(found.shares) == pytest.approx(1)


def test_few_verdicts_accuse_nobody():
    assert not position_bias.count_verdicts([2, 2, 2], [1, 1, 1]).is_biased


def test_a_row_of_one_candidate_asks_nothing(alignment):
    stage = Judge(alignment.recipe)
    row = PlannedRow("row", {"id": "list", "candidates": ["{}"]}, "judge")
    assert stage.request(row) is None
    with pytest.raises(Rejected, match="too_few_candidates"):
        stage.without_model(row)
