"""Compute the loss of a global batch from embeddings: InfoNCE alone, or beside a loss by a judge's scores."""

from dataclasses import dataclass

import torch
from torch import Tensor

from speed_ray.recipes.training_settings import Loss
from speed_ray.training.contrastive import distillation, gradcache, infonce
from speed_ray.training.contrastive.guide import GuideVectors
from speed_ray.training.contrastive.infonce import TextHashes


@dataclass(frozen=True)
class ContrastiveConfig:
    """Settings of the loss. `matryoshka_dims` are prefix lengths of an embedding that are each to work alone."""

    temperature: float
    micro_batch_size: int  # texts that are embedded at once
    global_batch_size: int | None = None  # rows of a full batch; null: every batch is a full one
    matryoshka_dims: tuple[int, ...] = ()
    loss: Loss = "infonce"
    infonce_weight: float = 0.1  # beside another loss


@dataclass(frozen=True)
class BatchLoss:
    """Computes this worker's part of the loss: a sum over its n queries, of `rows` rows that it embeds.

    The rows after the first n are padding; `kept` selects of all workers' documents those of rows that are none.
    """

    config: ContrastiveConfig
    no_in_batch_negatives: bool
    rows: int
    hashes: TextHashes
    kept: Tensor | slice
    weights: Tensor  # of the queries, fp32 (n,)
    teacher: Tensor  # a judge's logits or scores of each query's own documents, fp32 (n, its own documents); or (n, 0)
    guide: GuideVectors | None

    def __call__(self, embeddings: Tensor) -> Tensor:
        """Return an fp32 scalar for embeddings (texts, width) of queries, positives and negatives, in this order.

        With Matryoshka dimensions (arXiv 2205.13147) the loss is the mean over these prefixes.
        """
        widths = self.config.matryoshka_dims or (embeddings.shape[1],)
        return torch.stack([self._of_prefixes(embeddings[:, :width]) for width in widths]).mean()

    def _of_prefixes(self, embeddings: Tensor) -> Tensor:
        queries, own_documents = embeddings.split([self.rows, len(embeddings) - self.rows])
        queries = queries[: len(self.weights)]
        if self.config.loss == "infonce":
            return self._infonce(queries, own_documents)
        candidates = own_documents.unflatten(0, (-1, self.rows))[:, : len(self.weights)]
        logits = distillation.candidate_logits(queries, candidates, self.config.temperature)
        losses = distillation.kl_losses if self.config.loss == "kl" else distillation.margin_mse_losses
        total = (losses(logits, self.teacher) * self.weights).sum()
        if self.config.infonce_weight:
            total = total + self.config.infonce_weight * self._infonce(queries, own_documents)
        return total

    def _infonce(self, queries: Tensor, own_documents: Tensor) -> Tensor:
        documents = gradcache.all_gather_with_gradient(own_documents)[self.kept]
        return infonce.infonce_loss(
            queries,
            documents,
            self.hashes,
            self.config.temperature,
            self.no_in_batch_negatives,
            self.weights,
            self.guide,
        )
