"""A query that finds its passage late is written again once, and the one that finds it sooner stays."""

import asyncio
import json
from typing import Any

from speed_ray.engines.base import Reply, Sample
from speed_ray.executor.shard_worker import Worker
from speed_ray.recipes.needed_jobs import needed_jobs
from speed_ray.recipes.schema import Recipe
from speed_ray.stages import query_ranks
from speed_ray.stages.rewrite import Rewrite
from speed_ray.storage.planned_rows import FollowedInputs
from speed_ray.storage.run import (
    EXAMPLES,
    RANKED_EXAMPLES,
    REVISED_EXAMPLES,
    REWRITTEN_EXAMPLES,
    Run,
    finished_examples,
)
from speed_ray.storage.verify import verify
from tests.helpers.grounded_run import MINILM, example, publish
from tests.helpers.passages import grounded_recipe
from tests.unit.stages.test_judge_by_scores import GOOD, PASSAGES, STRAY

SETTINGS = {
    "synthesize": {"revise": True},
    "curate": {"reference": MINILM},
    "revise": {"found_after": 5, "shard_rows": 2},
    "slots": {"retrieval": {"min_words": 1, "max_words": 30}},
}


class Writer:
    """A generator that answers with what it is given, passage by passage."""

    model, in_flight = "a writer", 4

    def __init__(self, answers: dict[str, str], one_line: bool = False) -> None:
        self.answers, self.one_line = answers, one_line
        self.prompts: list[str] = []

    async def generate(self, request: Any) -> Reply:
        self.prompts.append(request.messages[0]["content"])
        answer = self.answers[request.context["passage"]]
        return Reply([Sample(answer if self.one_line else json.dumps({"query": answer}), "stop", 1)], 1, 0.0)


def revised(run: Run, recipe: Recipe, queries: list[str], writer: Writer) -> list[dict[str, Any]]:
    """Write these queries about the first passages, and revise them."""
    publish(run, PASSAGES, [example(query, about) for query, about in zip(queries, PASSAGES, strict=False)])
    query_ranks.publish_ranked(run, recipe)
    stage, artifact = Rewrite(recipe), run.artifact(REWRITTEN_EXAMPLES)
    plan = stage.plan(run)
    artifact.ensure_plan(plan)
    worker = Worker(stage, artifact, plan, FollowedInputs(run.artifact(RANKED_EXAMPLES)), writer, None)
    for shard, generation in artifact.pending(plan):
        asyncio.run(worker.work(shard, generation))
    assert artifact.publish(plan)
    return list(query_ranks.publish_sooner_found(run, recipe).records())


def test_a_late_query_is_written_again_and_kept_where_its_passage_is_found_sooner(run) -> None:
    answers = {PASSAGES[1]["text"]: GOOD(1), PASSAGES[2]["text"]: STRAY(0), PASSAGES[3]["text"]: STRAY(3)}
    writer = Writer(answers)
    rows = revised(run, grounded_recipe(**SETTINGS), [GOOD(0), STRAY(1), STRAY(2), STRAY(3)], writer)

    assert [row["rank"] > 5 for row in run.artifact(RANKED_EXAMPLES).records()] == [False, True, True, True]
    assert len({prompt for prompt in writer.prompts if STRAY(1) in prompt}) == 1
    assert not [prompt for prompt in writer.prompts if GOOD(0) in prompt], "it finds its passage soon"
    assert [row["revised"] for row in rows] == [False, True, False, False]
    assert [row["kept_because"] for row in rows] == ["found_soon", "", "found_no_sooner", "unchanged"]
    assert [row["query"] for row in rows] == [GOOD(0), GOOD(1), STRAY(2), STRAY(3)]
    assert [row["id"] for row in rows] == [row["id"] for row in run.artifact(EXAMPLES).records()]
    assert all(verdict.holds for verdict in verify(run))


def test_a_line_that_finds_its_passage_no_sooner_leaves_the_example_as_it_was(run) -> None:
    lines = {"generator": {"engine": "vllm", "model": "some/model", "completion": True}}
    writer = Writer({PASSAGES[2]["text"]: STRAY(0)}, one_line=True)
    [*_, row] = revised(run, grounded_recipe(**SETTINGS, **lines), [GOOD(0), GOOD(1), STRAY(2)], writer)
    assert [f"other passages answer it: {STRAY(2)}\n" in prompt for prompt in writer.prompts] == [True]
    assert (row["query"], row["revised"], row["kept_because"]) == (STRAY(2), False, "found_no_sooner")
    assert run.artifact(REVISED_EXAMPLES).manifest() is not None


def test_a_recipe_of_documents_revises_without_a_revisor() -> None:
    recipe = grounded_recipe(**SETTINGS)
    assert "align_revisor" not in needed_jobs(recipe) and finished_examples(recipe) == REVISED_EXAMPLES
