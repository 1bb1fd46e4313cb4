"""Merge a trained embedder with its base by the share of trained weights that does best on held-out queries.

What fine-tuning takes from other tasks, a mean of both weights gives back (LM-Cocktail, arXiv 2311.13534). A share of
0 is the base itself, with its own prompts: where training helped nothing, the base is published.
"""

from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from sentence_transformers import SentenceTransformer

from speed_ray.engines.model_folder import fetch_model_folder
from speed_ray.evaluation import datasets, eval_models, score
from speed_ray.evaluation.datasets import MAIN_SCORES, EvaluationTask
from speed_ray.evaluation.intervals import paired_gain
from speed_ray.recipes.training_settings import Embedder, Merge
from speed_ray.training import distributed, plan
from speed_ray.training.contrastive import encoder
from speed_ray.training.contrastive.encoder import Encoder
from speed_ray.training.contrastive.held_out import HeldOut, TextEmbedder
from speed_ray.training.plan import TrainingPlan

BASE, TRAINED = 0.0, 1.0  # shares of the trained weights


@dataclass(frozen=True)
class ShareScores:
    """Hold the scores of one merge: nDCG@10 by held-out query, and of each guard set its main score."""

    by_query: dict[str, float] = field(default_factory=dict)
    guards: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Merged:
    """Hold the model to publish, whether its queries take instructions, and how its share was chosen."""

    model: SentenceTransformer
    instructed: bool
    facts: dict[str, Any]


def merge_with_base(training: TrainingPlan, folder: Path, held_out: HeldOut | None, instructed: bool) -> Merged:
    """Merge the trained model in a local folder with its base, alone on this worker.

    `instructed` says that the trained model's queries had instructions; those of a base of sentence-transformers never
    have.
    """
    settings = _settings(training)
    merge, guards = settings.merge, plan.guard_tasks(settings)
    assert merge is not None
    base, model = _load_base(training), encoder.load_encoder(folder, None, settings.max_length)
    trained = {name: weight.clone() for name, weight in model.state_dict().items()}
    shares = sorted({BASE, TRAINED, *merge.shares, *(() if held_out else (merge.fallback_share,))})
    scores, base_instructed = {}, instructed and settings.pooling is not None
    for share in shares:
        _set_weights(model, base, trained, share)
        tried = (base, base_instructed) if share == BASE else (model, instructed)
        scores[share] = _score(*tried, settings, held_out, guards)
    chosen = choose_share(merge, scores)
    facts = {"share": chosen, "queries": len(scores[BASE].by_query), "shares": _describe(scores, guards)}
    if chosen == BASE:
        if settings.pooling is not None:
            encoder.set_trained_prompts(base, instructed)
        return Merged(base, base_instructed, facts)
    _set_weights(model, base, trained, chosen)
    return Merged(model, instructed, facts)


def choose_share(merge: Merge, scores: dict[float, ShareScores]) -> float:
    """Return the share with the best mean on held-out queries, of equal ones the smallest, which no guard refuses.

    Without held-out queries it is the largest one up to `fallback_share`. The base, 0, is refused by no guard.
    """
    base = scores[BASE]
    lowest = [score - guard.max_drop for score, guard in zip(base.guards, merge.guards, strict=True)]

    def is_safe(share: float) -> bool:
        return all(score >= bound for score, bound in zip(scores[share].guards, lowest, strict=True))

    if not base.by_query:
        wanted = (BASE, *merge.shares, merge.fallback_share)
        return max(share for share in wanted if share <= merge.fallback_share and is_safe(share))
    safe = filter(is_safe, {BASE, *merge.shares})
    return max(safe, key=lambda share: (fmean(scores[share].by_query.values()), -share))


def _settings(training: TrainingPlan) -> Embedder:
    assert isinstance(training.settings, Embedder)
    return training.settings


def _load_base(training: TrainingPlan) -> SentenceTransformer:
    settings = _settings(training)
    folder = fetch_model_folder(training.base, training.revision, training.base_key)
    dtype = encoder.trained_dtype(settings)
    return encoder.load_encoder(folder, settings.pooling, settings.max_length, dtype)


@torch.no_grad()
def _set_weights(
    model: SentenceTransformer, base: SentenceTransformer, trained: dict[str, torch.Tensor], share: float
) -> None:
    """Set a model's weights to `share` of the trained ones and the rest of the base's, computed in fp32."""
    original = base.state_dict()
    for name, weight in model.state_dict().items():
        if weight.is_floating_point():
            ends = (each[name].to(weight.device, torch.float32) for each in (original, trained))
            weight.copy_(torch.lerp(*ends, share))


def _score(
    model: SentenceTransformer,
    instructed: bool,
    settings: Embedder,
    held_out: HeldOut | None,
    guards: list[EvaluationTask],
) -> ShareScores:
    """Score a model on the held-out queries and the guard sets, on this worker's device."""
    model.to(distributed.device(settings.workers.num_gpus)).eval()
    by_query = {}
    if held_out is not None:
        length = model.get_max_seq_length() or settings.max_length
        embed = TextEmbedder(Encoder(model), model.tokenizer, length, settings.micro_batch_size)
        by_query = held_out.ndcg_by_query(embed, instructed)
    return ShareScores(by_query, [_guard_score(model, instructed, task) for task in guards])


def _guard_score(model: SentenceTransformer, instructed: bool, task: EvaluationTask) -> float:
    embed = eval_models.embed_with(model, instructed, task.instruction or "")
    result = score.score_embeddings(embed, datasets.load_dataset(task.kind, task.sources))
    return float(result["scores"][MAIN_SCORES[task.kind]])


def _describe(scores: dict[float, ShareScores], guards: list[EvaluationTask]) -> list[dict[str, Any]]:
    """List each share's scores, with the interval of its gain over the base, as manifests and cards have them."""
    return [
        {
            "share": share,
            **({"ndcg_at_10": fmean(found.by_query.values())} if found.by_query else {}),
            **({"gain": str(gain)} if (gain := paired_gain(scores[BASE].by_query, found.by_query)) else {}),
            **({"guards": dict(zip((task.name for task in guards), found.guards, strict=True))} if guards else {}),
        }
        for share, found in scores.items()
    ]
