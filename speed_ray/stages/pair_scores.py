"""Have judges score each curated example, its hard negatives and what may answer its query besides -> `pair_scores`.

A row for each example, in the same order: all that gates and relabelling need to decide, and nothing decided. A shard
that is committed is judged no more; other judges, or other examples, make all of it anew.
"""

import hashlib
import heapq
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from speed_ray.curation.judge_faults import key_of_judge
from speed_ray.curation.prompt_copies import prompt_triples
from speed_ray.curation.query_blocks import open_corpus
from speed_ray.curation.reference_model import ReferenceModel, reference_digest, reference_folder
from speed_ray.engines import model_folder
from speed_ray.engines.cross_encoder_folder import check_cross_encoder
from speed_ray.executor.stage import artifact_identity, count_records
from speed_ray.recipes.schema import Recipe
from speed_ray.recipes.score_settings import Score
from speed_ray.records import JUDGED_PAIR
from speed_ray.stages import driver_stage
from speed_ray.stages.embed_passages import plan_embeddings, publish_embeddings
from speed_ray.storage.fingerprint import code_digests
from speed_ray.storage.planned_rows import read_records
from speed_ray.storage.run import CURATED_EXAMPLES, PAIR_SCORES, PASSAGE_EMBEDDINGS, PASSAGES, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import Artifact
from speed_ray.text.token_hashes import Hashes

if TYPE_CHECKING:
    from speed_ray.curation.background import Background
    from speed_ray.curation.cross_encoder import CrossEncoder

SAMPLE_ROWS = 1_024  # whose texts a query's scores are held against where there is no corpus


@dataclass(frozen=True)
class Judging:
    """Hold the plan of the judges' scores, and all that a worker must know to give them."""

    uri: str  # of the run
    plan: Plan
    settings: Score
    reference: str | None
    grounded: bool
    has_corpus: bool
    triples: Hashes  # of the prompts
    embeddings: Plan | None  # of the corpus's passages

    @property
    def neighbours(self) -> int:
        """Return how many passages are judged besides by each of reference and words."""
        return self.settings.neighbours if self.settings.relabel else 0


def plan_judging(run: Run, recipe: Recipe, settings: Score) -> Judging:
    """Plan the scores. Raises UserError where the examples or the passages are unfinished, or a judge is none."""
    reference, curated = recipe.curate.reference, run.artifact(CURATED_EXAMPLES)
    triples, has_corpus = prompt_triples(recipe), recipe.corpus is not None
    models = {name: _digest_of(name, settings.cross_encoders[name]) for name in settings.cross_encoders}
    identity = {
        "code": code_digests(__name__),
        "input": artifact_identity(curated),
        "reference": reference and reference_digest(reference),
        "cross_encoders": models,
        "max_length": settings.max_length if models else None,
        "passages": artifact_identity(run.artifact(PASSAGES)) if has_corpus else None,
        "neighbours": settings.neighbours if settings.relabel else 0,
        "prompts": hashlib.sha256(triples.tobytes()).hexdigest(),
    }
    plan = Plan(PAIR_SCORES, count_records(curated), settings.shard_rows, CURATED_EXAMPLES, identity=identity)
    embeddings = plan_embeddings(run, recipe.curate) if has_corpus and reference else None
    return Judging(run.uri, plan, settings, reference, recipe.is_grounded, has_corpus, triples, embeddings)


def publish_judging(run: Run, judging: Judging, recipe: Recipe) -> Artifact:
    """Let the judges score what is not scored yet, on Ray's workers where the recipe says so."""
    artifact, plan = run.artifact(PAIR_SCORES), judging.plan
    existing = artifact.plan()
    if existing is not None and existing.digest != plan.digest:
        artifact.replace_plan(plan, "was judged by others, or of other examples")
    if artifact.manifest() is None and judging.embeddings is not None:
        publish_embeddings(run, judging.embeddings, recipe.curate)
    driver_stage.publish_shards(artifact, plan, JUDGED_PAIR, lambda pending: _judge_shards(run, judging, pending))
    return artifact


def _judge_shards(run: Run, judging: Judging, pending: Collection[int]) -> driver_stage.Shards:
    here, in_worker = partial(_ShardJudge, run, judging), partial(_judge_in_worker, judging)
    return driver_stage.map_shards("score", sorted(pending), judging.settings.workers, here, in_worker)


def _judge_in_worker(judging: Judging) -> "_ShardJudge":
    return _ShardJudge(Run(judging.uri), judging)


class _ShardJudge:
    """Judge a shard of the plan."""

    def __init__(self, run: Run, judging: Judging) -> None:
        from speed_ray.curation.pair_judge import PairJudge  # the library of BM25 takes a second to load

        settings = judging.settings
        self.curated = run.artifact(CURATED_EXAMPLES)
        self.plan = judging.plan
        self._folder = tempfile.TemporaryDirectory(prefix="speed_ray-score-")
        reference = ReferenceModel(reference_folder(judging.reference)) if judging.reference else None
        self.judge = PairJudge(
            self._background(run, judging, reference),
            reference,
            {name: _load(name, settings) for name in settings.cross_encoders},
            judging.triples,
            judging.grounded,
            judging.neighbours,
        )

    def _background(self, run: Run, judging: Judging, reference: ReferenceModel | None) -> "Background":
        from speed_ray.curation.background import Background

        folder = Path(self._folder.name)
        if judging.has_corpus:
            embeddings = run.artifact(PASSAGE_EMBEDDINGS) if reference else None
            return Background.of_corpus(open_corpus(run.artifact(PASSAGES), embeddings, folder))
        return Background.of_texts(_sample_texts(self.curated), reference, folder)

    def __call__(self, shard: int) -> list[driver_stage.RowResult]:
        rows = self.judge.judge(read_records(self.curated, self.plan.rows_of(shard)))
        return [driver_stage.RowResult(row["id"], row, None) for row in rows]


def _sample_texts(curated: Artifact) -> list[str]:
    """Return the different texts of the examples with the lowest ids: these are hashes, a fair draw."""
    columns = ["id", "positive", "negatives"]
    files = curated.record_files().values()
    rows = (row for file in files for row in curated.read(file.path).select(columns).to_pylist())
    drawn = heapq.nsmallest(SAMPLE_ROWS, rows, key=lambda row: str(row["id"]))
    return list(dict.fromkeys(text for row in drawn for text in (row["positive"], *row["negatives"])))


def _load(name: str, settings: Score) -> "CrossEncoder":
    from speed_ray.curation.cross_encoder import CrossEncoder

    device = "cuda" if settings.workers.num_gpus else "cpu"
    limits = settings.max_length, settings.batch_size
    return CrossEncoder(settings.cross_encoders[name], key_of_judge(name), *limits, device)


def _digest_of(name: str, model: str) -> str | None:
    key = key_of_judge(name)
    check_cross_encoder(model, key)
    return model_folder.identify_model(model, key)
