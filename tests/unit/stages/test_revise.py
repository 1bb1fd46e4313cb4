"""Revising: no example is lost by it, it follows examples shard by shard, and its pairs prefer the teacher's way."""

import asyncio
import json
from itertools import count

import pytest

from speed_ray import kinds
from speed_ray.console import status
from speed_ray.engines.base import PromptTooLong, Reply, Sample
from speed_ray.errors import Interrupted
from speed_ray.records import EXAMPLE, REVISION, SFT_EXAMPLE
from speed_ray.stages import driver_stage, example_request, pair_revisions
from speed_ray.stages.revise import Revise
from speed_ray.stages.synthesize import Synthesize
from speed_ray.storage.planned_rows import FollowedInputs
from speed_ray.storage.repair import repair_run
from speed_ray.storage.run import EXAMPLES, OWN_REVISIONS, REVISED_EXAMPLES, REVISION_PAIRS, REVISIONS
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import RECORDS, REJECTS, REPLIES
from speed_ray.storage.verify import verify


class Answers:
    """A revisor that gives the same answer each time, or raises it."""

    model, in_flight = "the revisor", 8

    def __init__(self, answer):
        self.answer = answer
        self.asked = []

    async def generate(self, request):
        self.asked.append(request.row_id)
        if isinstance(self.answer, Exception):
            raise self.answer
        return Reply([Sample(self.answer or example_request.to_json(request.context["fields"]), "stop", 1)], 1, 0.0)


@pytest.fixture
def written(begin_alignment, weak):
    """Examples, a few of which were rejected."""
    made = begin_alignment("synthesize.max_retries=0")
    made.make(Synthesize(made.recipe), weak)
    assert made.rows(EXAMPLES, REJECTS)
    return made


def revised_by(made, engine):
    made.make(Revise(made.recipe), engine)
    return made.rows(REVISED_EXAMPLES)


def test_a_revised_example_stands_in_for_the_one_it_was_made_from(alignment):
    examples, revised = alignment.rows(EXAMPLES), alignment.rows(REVISED_EXAMPLES)
    assert [row["id"] for row in revised] == [row["id"] for row in examples]
    assert {row["revised"] for row in revised} == {True, False}
    texts = ("query", "positive", "negatives")
    for before, after in zip(examples, revised, strict=True):
        assert (tuple(before[name] for name in texts) != tuple(after[name] for name in texts)) == after["revised"]
        assert (after["kept_because"] == "") == after["revised"]
        same = {name: before[name] for name in EXAMPLE.names if name not in (*texts, "model")}
        assert {name: after[name] for name in same} == same


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("Certainly!", "not_json"),
        (json.dumps({"S1": "a"}), "missing_field"),
        (PromptTooLong("9000 of 1024 tokens"), "prompt_too_long"),
        (None, "unchanged"),
    ],
)
def test_an_example_whose_revision_is_unfit_is_kept_with_the_reason(written, answer, reason):
    engine = Answers(answer)
    rows, examples = revised_by(written, engine), written.rows(EXAMPLES)
    assert rows == [{**example, "revised": False, "kept_because": reason} for example in examples]
    assert sorted(engine.asked) == sorted(row["id"] for row in examples), "a single pass, and each once"
    assert f"  kept as it was, {reason}: {len(examples)}" in status.status_lines(written.run)


def test_what_was_not_written_is_not_asked_about(written):
    engine = Answers(None)
    revised_by(written, engine)
    missing = {row["row_id"] for row in written.rows(EXAMPLES, REJECTS)}
    rejects = written.rows(REVISED_EXAMPLES, REJECTS)
    assert {row["row_id"] for row in rejects} == missing and not missing & set(engine.asked)
    assert {row["reason"] for row in rejects} == {"not_written"}
    assert all(verdict.holds for verdict in verify(written.run))


def test_a_shard_is_revised_as_soon_as_it_is_written(begin_alignment, weak):
    made = begin_alignment()
    run, recipe, revisor = made.run, made.recipe, made.recipe.generator
    examples, plan = run.artifact(EXAMPLES), Synthesize(recipe).plan(run)
    examples.ensure_plan(plan)
    asyncio.run(made.worker(plan, Synthesize(recipe)).work(2, 0))

    followed = Revise(recipe, revisor).plan(run)
    assert (followed.rows, followed.shards) == (plan.rows, plan.shards)
    run.artifact(REVISED_EXAMPLES).ensure_plan(followed)
    worker = made.worker(followed, Revise(recipe, revisor), weak)
    assert asyncio.run(worker.work(2, 0)).accepted == 10
    assert [row["id"] for row in made.rows(REVISED_EXAMPLES)] == [row["id"] for row in made.rows(EXAMPLES)]
    with pytest.raises(Interrupted, match="shard 3 of memory:///examples is not written yet"):
        asyncio.run(worker.work(3, 0))

    made.make(Synthesize(recipe))
    revised_by(made, weak)
    assert len(made.rows(REVISED_EXAMPLES)) == 46 and all(verdict.holds for verdict in verify(run))


def test_the_generation_that_counts_is_followed(written):
    examples, plan = written.run.artifact(EXAMPLES), Synthesize(written.recipe).plan(written.run)
    [first, *_] = examples.commits()
    examples.withdraw(first)
    with pytest.raises(Interrupted, match="not written yet"):
        FollowedInputs(examples).of_shard(0)
    asyncio.run(written.worker(plan, Synthesize(written.recipe)).work(0, 1))
    assert {row.parent["model"] for row in FollowedInputs(examples).of_shard(0)} == {"the generator"}
    assert examples.commit_of(0).generation == 1 and examples.commit_of(0) == next(examples.commits())


def test_an_example_is_written_back_as_the_fields_it_came_from(alignment):
    raw = {row["row_id"]: row["text"] for row in alignment.rows(EXAMPLES, REPLIES)}  # the last trial's
    for row in alignment.rows(EXAMPLES):
        kind = kinds.load_kind(row["kind"])
        assert example_request.to_json(example_request.from_columns(kind, row)) == example_request.to_json(
            json.loads(raw[row["id"]])
        )


def test_the_revisors_own_revisions_answer_the_very_prompts_of_the_teachers(alignment):
    revisions = {row["id"]: row for row in alignment.rows(REVISIONS)}
    own = alignment.rows(OWN_REVISIONS)
    assert 30 < len(own) < len(revisions), "the weak revisor wrote some that are unfit"
    for row in own:
        assert row["messages"] == revisions[row["parent_id"]]["messages"]
        assert row["reply"] != revisions[row["parent_id"]]["reply"]


@pytest.fixture
def pair_up(run, begin_alignment):
    """Make pairs of revisions, each (example, the teacher's, the revisor's own or None)."""
    recipe = begin_alignment().recipe
    base = {"kind": "sts", "topic": "t", "messages": [{"role": "user", "content": "Better."}], "model": "m"}
    remarks = dict.fromkeys(("relevance", "completeness", "accuracy"), "so so")

    def pairs(*given):
        passed = {REVISIONS: [], OWN_REVISIONS: []}
        for number, (example, reply, own) in zip(count(), given, strict=False):
            ids = {"id": f"r{number}", "row_id": f"r{number}", "parent_id": "list"}
            row = {**base, **ids, **remarks, "example": example, "reply": reply}
            passed[REVISIONS].append(driver_stage.RowResult(row["id"], row, None))
            if own is not None:
                row = {**base, "id": f"o{number}", "row_id": f"o{number}", "parent_id": ids["id"], "reply": own}
                passed[OWN_REVISIONS].append(driver_stage.RowResult(row["id"], row, None))
        for name, schema in ((REVISIONS, REVISION), (OWN_REVISIONS, SFT_EXAMPLE)):
            plan = Plan(name, rows=len(passed[name]), shard_rows=2)
            driver_stage.publish_rows(run.artifact(name), plan, schema, iter(passed[name]))
        artifact = pair_revisions.pair_revisions(run, recipe)
        rows = [row for c in artifact.commits() if "records" in c.files
                for row in artifact.read(c.files["records"].path).to_pylist()]  # fmt: skip
        return rows, artifact.manifest()["counts"]

    return pairs


def test_the_teachers_revision_is_preferred_to_what_the_revisor_would_do(pair_up):
    rows, counts = pair_up(
        ("example", "teacher's", "own"),
        ("example", "teacher's", None),
        ("example", "teacher's", "teacher's"),
        ("left alone", "left alone", "own"),
        ("left alone", "left alone", "left alone"),
        ("left alone", "left alone", None),
    )
    assert [(row["chosen"], row["rejected"]) for row in rows] == [
        ("teacher's", "own"),
        ("teacher's", "example"),
        ("teacher's", "example"),
        ("left alone", "own"),
    ]
    assert counts["reasons"] == {"nothing_to_prefer": 2}
    assert {row["messages"][0]["content"] for row in rows} == {"Better."}


def test_pairs_are_made_once_and_verified(alignment):
    again = pair_revisions.pair_revisions(alignment.run, alignment.recipe)
    assert len(list(again.commits())) == 5
    rows, rejects = alignment.rows(REVISION_PAIRS), alignment.rows(REVISION_PAIRS, REJECTS)
    assert len(rows) + len(rejects) == 46 and {row["reason"] for row in rejects} <= {"nothing_to_prefer"}
    assert all(verdict.holds for verdict in verify(alignment.run))


def damage_and_withdraw(made, shard):
    """Have a shard of examples be withdrawn as its publication would, which knows nothing of revised ones."""
    examples = made.run.artifact(EXAMPLES)
    commit = examples.commit_of(shard)
    examples.put(commit.files[RECORDS].path, b"torn")
    examples.withdraw(commit)


def test_a_revision_of_an_example_that_is_made_anew_is_made_anew_too(written, weak):
    """Shard k is damaged after it was revised and before it is published."""
    revised_by(written, Answers(None))
    before = written.run.artifact(REVISED_EXAMPLES).commit_of(0)
    written.run.artifact(REVISED_EXAMPLES).unpublish()
    damage_and_withdraw(written, 0)
    plan, artifact = Revise(written.recipe).plan(written.run), written.run.artifact(REVISED_EXAMPLES)
    assert not artifact.publish(plan)
    written.make(Synthesize(written.recipe), weak)
    revised_by(written, Answers(None))
    after = artifact.commit_of(0)
    assert after.attempt != before.attempt and after.source == written.run.artifact(EXAMPLES).commit_of(0).attempt
    assert all(verdict.holds for verdict in verify(written.run))


def test_a_published_revision_of_an_example_that_is_no_more_is_named(written, weak):
    revised_by(written, Answers(None))
    damage_and_withdraw(written, 0)
    written.make(Synthesize(written.recipe), weak)
    revised = verify(written.run)[-1]
    assert revised.problems == ["memory:///revised_examples: shard 0 was made of rows that are no more"]
    assert [commit.shard for commit in revised.damaged] == [0]


def test_a_repair_of_examples_withdraws_their_revisions(written):
    revised_by(written, Answers(None))
    written.run.artifact(EXAMPLES).put(written.run.artifact(EXAMPLES).commit_of(1).files[RECORDS].path, b"torn")
    assert repair_run(written.run, verify(written.run)) == 2
    plan = Revise(written.recipe).plan(written.run)
    assert written.run.artifact(REVISED_EXAMPLES).pending(plan) == [(1, 1)]
