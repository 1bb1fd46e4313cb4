"""InfoNCE (van den Oord et al., arXiv 1807.03748) over a global batch, with known false negatives masked.

    loss of a query = -log( exp(s(q, d+) / t) / sum over d of exp(s(q, d) / t) )

s is the cosine similarity, t the temperature, d+ the query's positive, and d goes over the documents that are not
masked (SPEED, section 3.4; guide.py masks more). Logits are this worker's queries x all workers' documents, computed
in chunks of at most `MAX_LOGITS`: at 16,384 queries on one worker 4 MB instead of 1 GB, and several times that in
masks and gradients.
"""

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

    `queries` and `positives` are (n,), `documents` (m,). `own_documents` (n, 1 + negatives) holds indices into
    `documents`: of each query's positive, then of its negatives.
    """

    queries: Tensor
    positives: Tensor
    documents: Tensor
    own_documents: Tensor

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
    type. With `no_in_batch_negatives` a query is compared with its own positive and negatives alone: the labels of
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
            positives, chunk_weights = chunk_hashes.own_documents[:, :1], weights[chunk, None]
            mask = false_negative_mask(chunk_hashes, no_in_batch_negatives)
            if guide is not None:
                mask.logical_or_(guide.mask(chunk)).scatter_(1, positives, False)
            logits.masked_fill_(mask, float("-inf"))
            log_sums = logits.logsumexp(1, keepdim=True)
            total += ((log_sums - logits.gather(1, positives)) * chunk_weights).sum()
            slope = logits.sub_(log_sums).exp_()  # softmax, less one at the positive, is the gradient by the logits
            slope.scatter_add_(1, positives, slope.new_full(positives.shape, -1.0)).mul_(chunk_weights / temperature)
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

    Masked are copies of the query's positive and of the query itself; with `no_in_batch_negatives` all documents but
    the query's own. The positive itself is never masked.
    """
    own = torch.zeros(len(hashes.queries), len(hashes.documents), dtype=torch.bool, device=hashes.own_documents.device)
    own.scatter_(1, hashes.own_documents, True)
    if no_in_batch_negatives:
        return ~own
    same = (hashes.documents == hashes.positives[:, None]) | (hashes.documents == hashes.queries[:, None])
    positive = own.zero_().scatter_(1, hashes.own_documents[:, :1], True)
    return same & ~positive
