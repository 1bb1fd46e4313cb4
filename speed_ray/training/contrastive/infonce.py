"""InfoNCE over the embeddings of a global batch: each query against every document that is not known to answer it.

    loss = mean over queries of -log( exp(s(q, d+) / t) / sum over d of exp(s(q, d) / t) ),  s the cosine

Logits are this worker's queries x all workers' documents, and no more of them at once than `MAX_LOGITS`: at 16,384
queries on one worker 4 MB where all together are 1 GB, and several times that in masks and gradient.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

MAX_LOGITS = 1 << 20  # held at once


@dataclass(frozen=True)
class TextHashes:
    """Hashes of a batch's texts, by which false negatives are known: int64, `queries` and `positives` (n,).

    `documents` (m,) are all documents that queries are held against, from every worker; `own` (n, k) tells the places
    among them of a query's positive, first, and of its negatives.
    """

    queries: Tensor
    positives: Tensor
    documents: Tensor
    own: Tensor

    def of(self, queries: slice) -> "TextHashes":
        """The same, for some of the queries."""
        return TextHashes(self.queries[queries], self.positives[queries], self.documents, self.own[queries])


def infonce_loss(
    queries: Tensor, documents: Tensor, texts: TextHashes, temperature: float, own_negatives_only: bool
) -> Tensor:
    """Return the sum over queries (n, d) held against documents (m, d), in fp32; divide it by all workers' queries.

    `own_negatives_only` is for classification, whose labels answer many of the other queries too.
    """
    total: Tensor = _InfoNCE.apply(queries, documents, texts, temperature, own_negatives_only)
    return total


class _InfoNCE(torch.autograd.Function):
    """The loss and, in the same go, its gradient: what is left of a part's logits is their share of both.

    PyTorch's own checkpointing kept the parts' masks and, on a CPU, 3 GB of 16,384 queries; its gradient of
    `normalize` held ten copies of all embeddings at once, this one holds two.
    """

    @staticmethod
    def forward(
        context: Any,
        queries: Tensor,
        documents: Tensor,
        texts: TextHashes,
        temperature: float,
        own_negatives_only: bool,
    ) -> Tensor:
        asked, held = normalize(queries.float(), dim=-1), normalize(documents.float(), dim=-1)
        total = asked.new_zeros(())
        of_asked, of_held = torch.empty_like(asked), torch.zeros_like(held)
        at_once = max(1, MAX_LOGITS // len(held))
        for first in range(0, len(asked), at_once):
            part = slice(first, first + at_once)
            mine = texts.of(part)
            logits = (asked[part] @ held.T).div_(temperature)
            logits.masked_fill_(false_negative_mask(mine, own_negatives_only), float("-inf"))
            right = mine.own[:, :1]
            sums = logits.logsumexp(1, keepdim=True)
            total += (sums - logits.gather(1, right)).sum()
            slope = logits.sub_(sums).exp_()  # a document's probability, for its own query less one
            slope.scatter_add_(1, right, slope.new_full(right.shape, -1.0)).div_(temperature)
            of_asked[part] = slope @ held
            of_held.addmm_(slope.T, asked[part])
        context.save_for_backward(
            _normalize_backward(of_asked, asked, queries), _normalize_backward(of_held, held, documents)
        )
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        of_queries, of_documents = context.saved_tensors
        return gradients[0] * of_queries, gradients[0] * of_documents, None, None, None


def _normalize_backward(gradient: Tensor, unit: Tensor, vectors: Tensor) -> Tensor:
    """Turn the gradient by unit vectors, in its place, into that by the vectors that they were made of."""
    along = torch.linalg.vecdot(gradient, unit).neg_().unsqueeze(1)
    lengths = torch.linalg.vector_norm(vectors.float(), dim=1, keepdim=True).clamp_min_(1e-12)  # as in `normalize`
    return gradient.addcmul_(unit, along).div_(lengths).to(vectors.dtype)


def false_negative_mask(texts: TextHashes, own_negatives_only: bool) -> Tensor:
    """Which documents (n, m) a query is not held against: its positive's text once more, and its own text."""
    mine = torch.zeros(len(texts.queries), len(texts.documents), dtype=torch.bool, device=texts.own.device)
    mine.scatter_(1, texts.own, True)
    if own_negatives_only:
        return ~mine
    same = (texts.documents == texts.positives[:, None]) | (texts.documents == texts.queries[:, None])
    mine.zero_().scatter_(1, texts.own[:, :1], True)  # whatever it says, the positive itself stays
    return same & ~mine
