"""Verdicts by scores: the query that finds its passage is preferred, each list counts once, and DPO takes them."""

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from transformers import AutoTokenizer

from speed_ray.console import show, status
from speed_ray.curation import best_and_worst
from speed_ray.errors import UserError
from speed_ray.records import CANDIDATE_LIST, CandidatesRow, Row, content_id
from speed_ray.stages import judge_by_scores
from speed_ray.stages.driver_stage import RowResult, publish_rows
from speed_ray.storage.run import CANDIDATES, VERDICTS, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import RECORDS, REJECTS
from speed_ray.storage.verify import verify
from speed_ray.training import plan, tokenize
from tests.helpers.grounded_run import MINILM, passage, publish
from tests.helpers.passages import grounded_recipe
from tests.helpers.paths import ROOT
from tests.helpers.tiny_training import tiny_model

PLANTED = [json.loads(line) for line in (ROOT / "tests/golden/planted_passages.jsonl").read_text().splitlines()]
PASSAGES = [passage(each["passage"], each["passage"]) for each in PLANTED]
GOOD, STRAY, VAGUE = (
    (lambda n: PLANTED[n]["question"]),
    (lambda n: PLANTED[n - 9]["question"]),
    (lambda n: "what is it"),
)


def listed(number: int, queries: list[str], one_line: bool = False) -> CandidatesRow:
    """A list of the junior's about a passage."""
    about = PASSAGES[number]
    row_id = content_id("list", str(number))
    return {
        "id": row_id,
        "row_id": row_id,
        "parent_id": about["id"],
        "kind": "retrieval",
        "topic": "",
        "messages": [{"role": "user", "content": f"Ask about it: {about['text'][:40]}"}],
        "task": "",
        "language": "English",
        "candidates": queries if one_line else [json.dumps({"query": query}) for query in queries],
        "model": "junior",
    }


def recipe_of(**keys: Any):
    generator = keys.pop("generator", {"engine": "vllm", "model": "some/model"})
    settings = {"synthesize": {"generator": "senior"}, "curate": {"reference": MINILM}, "judge": {"shard_rows": 3}}
    return grounded_recipe(generator=generator, **settings, **keys)


def proposed(run: Run, lists: list[CandidatesRow], source: str | None = None) -> None:
    """Publish passages and candidates."""
    publish(run, PASSAGES, [])
    results = (RowResult(row["row_id"], row, None) for row in lists)
    publish_rows(run.artifact(CANDIDATES), Plan(CANDIDATES, len(lists), 4, source, ("0",)), CANDIDATE_LIST, results)


def judged(run: Run, lists: list[CandidatesRow], **keys: Any) -> tuple[list[Row], list[Row]]:
    """Judge. Returns the verdicts and the rejects."""
    proposed(run, lists)
    artifact = judge_by_scores.publish_verdicts(run, recipe_of(**keys))
    files = [commit.files for commit in artifact.commits()]
    kept, rejects = ([row for each in files if role in each for row in artifact.read(each[role].path).to_pylist()]
                     for role in (RECORDS, REJECTS))  # fmt: skip
    return kept, rejects


def mixed(number: int) -> CandidatesRow:
    """A list whose best is at another place each time."""
    queries = [STRAY(number), VAGUE(number)]
    queries.insert(number % 3, GOOD(number))
    return listed(number, queries)


def test_the_query_that_finds_its_passage_is_preferred_to_those_that_do_not(run) -> None:
    lists = [mixed(number) for number in range(24)]
    kept, rejects = judged(run, lists)
    assert not rejects and len(kept) == 24
    right = [json.loads(row["chosen"])["query"] == GOOD(number) for number, row in enumerate(kept)]
    assert sum(right) >= 22, "a query that means nothing may happen to be nearest to one passage of 24"
    for given, row in zip(lists, kept, strict=True):
        assert row["chosen"] != row["rejected"] and row["messages"] == given["messages"]
        assert given["candidates"][row["order"][row["best"] - 1]] == row["chosen"]
        assert given["candidates"][row["order"][row["worst"] - 1]] == row["rejected"]
        assert row["reason"].startswith("best: rank ") and row["model"] == "scores"
    assert all(verdict.holds for verdict in verify(run))


def test_lists_that_show_no_preference_are_rejects_with_their_reason(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(best_and_worst, "FOUND", 2)
    same = listed(0, [GOOD(0), GOOD(0) + "?"])
    kept, rejects = judged(run, [same, listed(1, [GOOD(1)]), listed(2, [STRAY(2), "weather"])])
    assert not kept
    assert [row["reason"] for row in rejects] == ["no_preference", "too_few_candidates", "none_found"]
    assert all(row["kind"] == "retrieval" and row["stage"] == VERDICTS for row in rejects)


def test_lines_of_a_generator_that_continues_them_are_judged_as_they_stand(run) -> None:
    lines = {"engine": "vllm", "model": "some/model", "completion": True}
    [verdict], _ = judged(run, [listed(0, [VAGUE(0), GOOD(0)], one_line=True)], generator=lines)
    assert (verdict["chosen"], verdict["rejected"]) == (GOOD(0), VAGUE(0))


class Stopped(Exception):
    pass


def test_a_second_drive_judges_no_shard_that_is_committed(run, monkeypatch: pytest.MonkeyPatch) -> None:
    lists = [mixed(number) for number in range(8)]
    judge, shards = judge_by_scores.ShardJudge.__call__, []

    def stop_once(self: judge_by_scores.ShardJudge, shard: int) -> list[RowResult]:
        shards.append(shard)
        if len(shards) == 2:
            raise Stopped
        return judge(self, shard)

    monkeypatch.setattr(judge_by_scores.ShardJudge, "__call__", stop_once)
    with pytest.raises(Stopped):
        judged(run, lists)
    kept, _ = judged(run, lists)
    assert shards == [0, 1, 1, 2] and len({row["row_id"] for row in kept}) == 8


def test_dpo_takes_the_verdicts(run, tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base", window=1024)
    small = {"global_batch_size": 4, "max_length": 1000, "eval_fraction": 0.0}
    recipe = recipe_of(generator={"engine": "vllm", "model": str(base)}, senior=small)
    local = Run(str(tmp_path / "run"))
    proposed(local, [mixed(number) for number in range(8)])
    judge_by_scores.publish_verdicts(local, recipe)
    rows = tokenize.tokenize_rows(plan.plan_senior(local, recipe), AutoTokenizer.from_pretrained(base), 1024)
    assert len(rows.train) == 8 and not rows.excluded


def test_a_verdict_leads_back_to_its_list_and_document_and_no_place_is_preferred(run) -> None:
    proposed(run, [mixed(number) for number in range(4)], "passages")
    verdict = next(judge_by_scores.publish_verdicts(run, recipe_of()).records())
    run.freeze(recipe_of())
    console = Console(record=True, width=400)
    show.show_rows(run, VERDICTS, console, row=verdict["id"])
    shown = console.export_text()
    assert "from candidates: messages:" in shown and f"from passages: text: {PASSAGES[0]['text'][:60]}" in shown
    assert not any("best by place" in line for line in status.status_lines(run))


def test_another_reference_is_another_judge(run) -> None:
    judged(run, [mixed(number) for number in range(4)])
    other = recipe_of().model_copy(update={"curate": recipe_of().curate.model_copy(update={"reference": "/no/model"})})
    with pytest.raises(UserError, match=r"curate\.reference: there is no model folder /no/model"):
        judge_by_scores.publish_verdicts(run, other)


def test_candidates_that_are_not_there_are_named(run) -> None:
    with pytest.raises(UserError, match=r"candidates is not finished.*\n.*align-senior"):
        judge_by_scores.publish_verdicts(run, recipe_of())
