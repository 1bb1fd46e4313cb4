"""Judge by scores: what can be counted of each candidate names the best and the worst of a list, without a teacher.

For queries about passages, whose own passage is to be found again. `curation/best_and_worst.py` has the rule; verdicts
are as a teacher's are, with the counts as their reason, so that DPO takes them as it takes those.
"""

from collections.abc import Collection
from functools import partial

from speed_ray import kinds
from speed_ray.curation.best_and_worst import Candidate, choose
from speed_ray.curation.passage_ranks import QueryRanks
from speed_ray.curation.reference_model import reference_digest
from speed_ray.executor.stage import artifact_identity, count_records
from speed_ray.recipes.schema import Recipe
from speed_ray.records import VERDICT, CandidatesRow, Rejected, VerdictRow
from speed_ray.stages import driver_stage
from speed_ray.stages.embed_passages import plan_embeddings, publish_embeddings
from speed_ray.stages.example_request import id_columns, to_query
from speed_ray.storage.fingerprint import code_digests
from speed_ray.storage.planned_rows import Inputs, PlannedRow
from speed_ray.storage.run import CANDIDATES, PASSAGES, VERDICTS, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import Artifact
from speed_ray.text.rules import copied_share
from speed_ray.text.words import split_words

SCORES = "scores"  # who judged


def plan_verdicts(run: Run, recipe: Recipe) -> Plan:
    """Plan one verdict for each list of candidates. Raises UserError before these are published."""
    candidates, reference = run.artifact(CANDIDATES), recipe.curate.reference
    assert reference is not None  # by the recipe's check
    identity = {
        "code": code_digests(__name__),
        "input": artifact_identity(candidates),
        "passages": artifact_identity(run.artifact(PASSAGES)),
        "reference": reference_digest(reference),
    }
    rows = count_records(candidates)
    return Plan(VERDICTS, rows, recipe.judge.shard_rows, CANDIDATES, (SCORES,), identity=identity)


def publish_verdicts(run: Run, recipe: Recipe) -> Artifact:
    """Judge the lists shard by shard, on Ray's workers where `curate.workers` says so, and publish the verdicts."""
    plan, artifact = plan_verdicts(run, recipe), run.artifact(VERDICTS)
    driver_stage.publish_shards(artifact, plan, VERDICT, lambda pending: _judge_shards(run, plan, recipe, pending))
    return artifact


def _judge_shards(run: Run, plan: Plan, recipe: Recipe, pending: Collection[int]) -> driver_stage.Shards:
    if not pending:
        return iter(())
    publish_embeddings(run, plan_embeddings(run, recipe.curate), recipe.curate)
    here, in_worker = partial(ShardJudge, run, plan, recipe), partial(_judge_in_worker, run.uri, plan, recipe)
    return driver_stage.map_shards("curate", sorted(pending), recipe.curate.workers, here, in_worker)


def _judge_in_worker(uri: str, plan: Plan, recipe: Recipe) -> "ShardJudge":
    return ShardJudge(Run(uri), plan, recipe)


class ShardJudge:
    """Judge a shard of lists."""

    def __init__(self, run: Run, plan: Plan, recipe: Recipe) -> None:
        reference = recipe.curate.reference
        assert reference is not None
        self._ranks = QueryRanks(run, reference)
        self._inputs = Inputs(run.artifact(CANDIDATES), plan)
        self._recipe = recipe

    def __call__(self, shard: int) -> list[driver_stage.RowResult]:
        rows: list[PlannedRow[CandidatesRow]] = self._inputs.of_shard(shard)
        queries = [self._queries(row.parent) for row in rows]
        counted = iter(self._count(rows, queries))
        return [_judge(row, [next(counted) for _ in each]) for row, each in zip(rows, queries, strict=True)]

    def _queries(self, row: CandidatesRow) -> list[str]:
        kind = kinds.load_grounded(row["kind"])
        return [to_query(self._recipe.generator, kind, reply) for reply in row["candidates"]]

    def _count(self, rows: list[PlannedRow[CandidatesRow]], queries: list[list[str]]) -> list[Candidate]:
        """Count what tells good queries from bad, of all lists in order."""
        index = self._ranks.index
        places = index.parents_of([row.parent for row in rows])
        own = places.repeat([len(each) for each in queries])
        texts = [query for each in queries for query in each]
        standings = self._ranks.find(texts, own)
        return [
            Candidate(standing, copied_share(query, index.text(place)), len(split_words(query)))
            for query, place, standing in zip(texts, own.tolist(), standings, strict=True)
        ]


def _judge(row: PlannedRow[CandidatesRow], candidates: list[Candidate]) -> driver_stage.RowResult:
    replies = row.parent["candidates"]
    try:
        if len(replies) < 2:
            raise Rejected("too_few_candidates", f"{len(replies)} fit candidate: there is nothing to compare")
        best, worst, reason = choose(candidates)
    except Rejected as rejected:
        said, text = (rejected.reason, rejected.detail), "\n".join(replies)
        return driver_stage.reject(row.row_id, row.parent["id"], VERDICTS, *said, text, row.parent["kind"])
    verdict: VerdictRow = {
        **id_columns(row),
        "messages": row.parent["messages"],
        "chosen": replies[best],
        "rejected": replies[worst],
        "order": list(range(len(replies))),
        "best": best + 1,
        "worst": worst + 1,
        "reason": reason,
        "model": SCORES,
    }
    return driver_stage.RowResult(row.row_id, verdict, None)
