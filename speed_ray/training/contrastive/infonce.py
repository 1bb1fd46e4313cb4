"""InfoNCE (van den Oord et al., arXiv 1807.03748) over a global batch, with known false negatives masked.

    loss of a query = -log( exp(s(q, d+) / t) / sum over d of exp(s(q, d) / t) )

s is the cosine similarity, t the temperature, d+ the query's positive, and d goes over d+ and the documents that are
not masked (SPEED, section 3.4; guide.py masks more). Of several positives none is a negative of another: a query's
loss is the mean over them. Logits are this worker's queries x all workers' documents, computed
in chunks of at most `MAX_LOGITS`: at 16,384 queries on one worker 4 MB instead of 1 GB, and several times that in
masks and gradients.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from speed_ray.training.contrastive.guide import GuideVectors

MAX_LOGITS = 1 << 20  # in memory at once


@dataclass(frozen=True)
class TextHashes:
    """Hashes of a batch's texts, int64, to know equal texts by: this worker's n queries, all workers' m documents.

    `queries` is (n,), `positives` (n, positives), `documents` (m,). `own_documents` (n, positives + negatives) holds
    indices into `documents`: of each query's positives, then of its negatives.
    """

    queries: Tensor
    positives: Tensor
    documents: Tensor
    own_documents: Tensor

    @property
    def own_positives(self) -> Tensor:
        """Return the indices into `documents` of each query's positives, (n, positives)."""
        return self.own_documents[:, : self.positives.shape[1]]

    def slice_queries(self, chunk: slice) -> "TextHashes":
        """Return the hashes for a slice of the queries, with all documents."""
        return TextHashes(self.queries[chunk], self.positives[chunk], self.documents, self.own_documents[chunk])


def infonce_loss(
    queries: Tensor,
    documents: Tensor,
    hashes: TextHashes,
    temperature: float,
    no_in_batch_negatives: bool,
    weights: Tensor | None = None,
    guide: GuideVectors | None = None,
) -> Tensor:
    """Return the sum of this worker's queries' losses, an fp32 scalar: the caller divides by all workers' queries.

    `queries` (n, width) are this worker's embeddings, `documents` (m, width) all workers', of any length and float
    type. With `no_in_batch_negatives` a query is compared with its own positives and negatives alone: the labels of
    classification answer many other queries too. `weights` (n,) are of the queries, all 1 where there are none.
    """
    weights = queries.new_ones(len(queries), dtype=torch.float32) if weights is None else weights
    total: Tensor = _InfoNCE.apply(queries, documents, hashes, temperature, no_in_batch_negatives, weights, guide)
    return total


class _InfoNCE(torch.autograd.Function):
    """Computes loss and gradient in one pass over chunks of logits, so that only one chunk is in memory.

    PyTorch's own checkpointing kept the chunks' masks and, on a CPU, 3 GB for 16,384 queries; its gradient of
    `normalize` held ten copies of all embeddings at once, this one holds two.
    """

    @staticmethod
    def forward(
        context: Any,
        queries: Tensor,
        documents: Tensor,
        hashes: TextHashes,
        temperature: float,
        no_in_batch_negatives: bool,
        weights: Tensor,
        guide: GuideVectors | None,
    ) -> Tensor:
        unit_queries, unit_documents = normalize(queries.float(), dim=-1), normalize(documents.float(), dim=-1)
        total = unit_queries.new_zeros(())
        query_gradient, document_gradient = torch.empty_like(unit_queries), torch.zeros_like(unit_documents)
        rows = max(1, MAX_LOGITS // len(unit_documents))
        for first in range(0, len(unit_queries), rows):
            chunk = slice(first, first + rows)
            chunk_hashes = hashes.slice_queries(chunk)
            logits = (unit_queries[chunk] @ unit_documents.T).div_(temperature)
            positives, chunk_weights = chunk_hashes.own_positives, weights[chunk, None]
            mask = false_negative_mask(chunk_hashes, no_in_batch_negatives)
            if guide is not None:
                mask.logical_or_(guide.mask(chunk))
            near, count = logits.gather(1, positives), positives.shape[1]
            logits.masked_fill_(mask.scatter_(1, positives, True), float("-inf"))
            log_sums = torch.logaddexp(logits.logsumexp(1, keepdim=True), near)  # of each positive and all negatives
            total += ((log_sums - near).mean(1, keepdim=True) * chunk_weights).sum()
            # The gradient by the logits: softmax, less one at the positive, in the mean over positives.
            slope = logits.add_(torch.logsumexp(-log_sums, 1, keepdim=True) - math.log(count)).exp_()
            slope.scatter_(1, positives, ((near - log_sums).exp_() - 1) / count).mul_(chunk_weights / temperature)
            query_gradient[chunk] = slope @ unit_documents
            document_gradient.addmm_(slope.T, unit_queries[chunk])
        context.save_for_backward(
            _normalize_backward(query_gradient, unit_queries, queries),
            _normalize_backward(document_gradient, unit_documents, documents),
        )
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query_gradient, document_gradient = context.saved_tensors
        return gradients[0] * query_gradient, gradients[0] * document_gradient, *(None,) * 5


def _normalize_backward(gradient: Tensor, unit: Tensor, vectors: Tensor) -> Tensor:
    """Backpropagate through L2 normalization, in place: all three tensors are (rows, width)."""
    along = torch.linalg.vecdot(gradient, unit).neg_().unsqueeze(1)
    lengths = torch.linalg.vector_norm(vectors.float(), dim=1, keepdim=True).clamp_min_(1e-12)  # as in `normalize`
    return gradient.addcmul_(unit, along).div_(lengths).to(vectors.dtype)


def false_negative_mask(hashes: TextHashes, no_in_batch_negatives: bool) -> Tensor:
    """Return a bool mask (n, m), True where a document is not compared with a query.

    Masked are copies of the query's positives and of the query itself; with `no_in_batch_negatives` all documents but
    the query's own. The positives themselves are never masked.
    """
    own = torch.zeros(len(hashes.queries), len(hashes.documents), dtype=torch.bool, device=hashes.own_documents.device)
    own.scatter_(1, hashes.own_documents, True)
    if no_in_batch_negatives:
        return ~own
    same = hashes.documents == hashes.queries[:, None]
    for positives in hashes.positives.T:
        same |= hashes.documents == positives[:, None]
    positive = own.zero_().scatter_(1, hashes.own_positives, True)
    return same & ~positive
