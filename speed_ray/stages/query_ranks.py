"""Rank a corpus's passages for each example's query -> `ranked_examples`; of two queries keep the better one.

What is better is the query that finds its own passage sooner, by the mixture that pairs are scored by too. Between the
two stands the stage that writes queries again (rewrite.py); what is kept is published as `revised_examples`.
"""

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any, cast

import pyarrow as pa

from speed_ray import kinds
from speed_ray.curation.passage_ranks import QueryRanks
from speed_ray.curation.reference_model import reference_digest
from speed_ray.executor.stage import artifact_identity, count_records
from speed_ray.recipes.schema import Recipe
from speed_ray.records import EXAMPLE, RANKED, REVISED, ExampleRow, RankedRow, RevisedRow, RewrittenRow
from speed_ray.stages import driver_stage
from speed_ray.stages.embed_passages import plan_embeddings, publish_embeddings
from speed_ray.storage.fingerprint import code_digests
from speed_ray.storage.planned_rows import read_records
from speed_ray.storage.run import (
    EXAMPLES,
    PASSAGES,
    RANKED_EXAMPLES,
    REVISED_EXAMPLES,
    REWRITTEN_EXAMPLES,
    Run,
)
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import Artifact

NO_SOONER = "found_no_sooner"


def publish_ranked(run: Run, recipe: Recipe) -> Artifact:
    """Rank the passages for the examples' queries."""
    return _publish(run, recipe, RANKED_EXAMPLES, EXAMPLES, RANKED)


def publish_sooner_found(run: Run, recipe: Recipe) -> Artifact:
    """Publish each example with that of its two queries by which its passage is found sooner."""
    return _publish(run, recipe, REVISED_EXAMPLES, REWRITTEN_EXAMPLES, REVISED)


def _publish(run: Run, recipe: Recipe, name: str, source: str, schema: pa.Schema) -> Artifact:
    reference, artifact, read = recipe.curate.reference, run.artifact(name), run.artifact(source)
    assert reference is not None  # by the recipe's check
    identity = {
        "code": code_digests(__name__),
        "input": artifact_identity(read),
        "passages": artifact_identity(run.artifact(PASSAGES)),
        "reference": reference_digest(reference),
    }
    plan = Plan(name, count_records(read), recipe.revise.shard_rows, source, identity=identity)
    driver_stage.publish_shards(artifact, plan, schema, lambda pending: _rank_shards(run, plan, recipe, pending))
    return artifact


def _rank_shards(run: Run, plan: Plan, recipe: Recipe, pending: Collection[int]) -> driver_stage.Shards:
    if not pending:
        return iter(())
    publish_embeddings(run, plan_embeddings(run, recipe.curate), recipe.curate)
    here, in_worker = partial(ShardRanker, run, plan, recipe), partial(_rank_in_worker, run.uri, plan, recipe)
    return driver_stage.map_shards("curate", sorted(pending), recipe.curate.workers, here, in_worker)


def _rank_in_worker(uri: str, plan: Plan, recipe: Recipe) -> "ShardRanker":
    return ShardRanker(Run(uri), plan, recipe)


class ShardRanker:
    """Rank passages for the queries of a shard."""

    def __init__(self, run: Run, plan: Plan, recipe: Recipe) -> None:
        reference = recipe.curate.reference
        assert reference is not None and plan.input is not None
        self._ranks = QueryRanks(run, reference)
        self._source, self._plan = run.artifact(plan.input), plan

    def __call__(self, shard: int) -> list[driver_stage.RowResult]:
        rows: list[Any] = read_records(self._source, self._plan.rows_of(shard))
        decided = self._ranked(rows) if self._plan.stage == RANKED_EXAMPLES else self._chosen(rows)
        return [driver_stage.RowResult(row["id"], row, None) for row in decided]

    def _ranked(self, rows: list[ExampleRow]) -> list[RankedRow]:
        asked = [row for row in rows if kinds.load_grounded(row["kind"]).writes_queries]
        ranks = self._find(asked, [row["query"] for row in asked])
        return [{**row, "rank": ranks.get(row["id"], 0)} for row in rows]

    def _chosen(self, rows: list[RewrittenRow]) -> list[RevisedRow]:
        asked = [row for row in rows if row["rewritten"]]
        ranks = self._find(asked, [row["rewritten"] for row in asked])
        return [_choose(row, ranks.get(row["id"])) for row in rows]

    def _find(self, rows: Sequence[ExampleRow], queries: list[str]) -> dict[str, int]:
        """Return the rank of its passage for one query of each row, by the row's id."""
        if not rows:
            return {}
        standings = self._ranks.find(queries, self._ranks.index.parents_of(rows))
        return {row["id"]: standing.rank for row, standing in zip(rows, standings, strict=True)}


def _choose(row: RewrittenRow, rank: int | None) -> RevisedRow:
    """Return the example with its other query, where that has a lower rank, else as it was."""
    example = cast(ExampleRow, {name: value for name, value in row.items() if name in EXAMPLE.names})
    if rank is not None and rank < row["rank"]:
        query, writer = row["rewritten"], row["writer"]
        return {**example, "query": query, "model": writer, "revised": True, "kept_because": ""}
    return {**example, "revised": False, "kept_because": row["kept_because"] or NO_SOONER}
