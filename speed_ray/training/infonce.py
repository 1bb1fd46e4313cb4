"""InfoNCE over the embeddings of a global batch: each query against every document that is not known to answer it.

    loss = mean over queries of -log( exp(s(q, d+) / t) / sum over d of exp(s(q, d) / t) ),  s the cosine

Logits are this worker's queries x all workers' documents, and no more of them at once than `LOGITS`: at 16,384 queries
on one worker 16 MB where all together are 1 GB, and several times that in their gradient.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from torch.utils.checkpoint import checkpoint

LOGITS = 1 << 22  # held at once; those of other queries are computed once more for the gradient


@dataclass(frozen=True)
class Texts:
    """Hashes of a batch's texts, by which false negatives are known: int64, `queries` and `positives` (n,).

    `documents` (m,) are all documents that queries are held against, from every worker; `own` (n, k) tells the places
    among them of a query's positive, first, and of its negatives.
    """

    queries: Tensor
    positives: Tensor
    documents: Tensor
    own: Tensor

    def of(self, queries: slice) -> "Texts":
        """The same, for some of the queries."""
        return Texts(self.queries[queries], self.positives[queries], self.documents, self.own[queries])


def loss(queries: Tensor, documents: Tensor, texts: Texts, temperature: float, own_negatives_only: bool) -> Tensor:
    """Return the sum over queries (n, d) held against documents (m, d), in fp32; divide it by all workers' queries.

    `own_negatives_only` is for classification, whose labels answer many of the other queries too.
    """
    asked, held = normalize(queries.float(), dim=-1), normalize(documents.float(), dim=-1)

    def of(some: slice) -> Tensor:
        logits = asked[some] @ held.T / temperature
        mine = texts.of(some)
        logits = logits.masked_fill(left_out(mine, own_negatives_only), float("-inf"))
        return cross_entropy(logits, mine.own[:, 0], reduction="sum")

    at_once = max(1, LOGITS // len(documents))
    if len(queries) <= at_once:
        return of(slice(None))
    parts = [slice(first, first + at_once) for first in range(0, len(queries), at_once)]
    return torch.stack([checkpoint(of, part, use_reentrant=False) for part in parts]).sum()


def left_out(texts: Texts, own_negatives_only: bool) -> Tensor:
    """Which documents (n, m) a query is not held against: its positive's text once more, and its own text."""
    mine = torch.zeros(len(texts.queries), len(texts.documents), dtype=torch.bool, device=texts.own.device)
    mine.scatter_(1, texts.own, True)
    if own_negatives_only:
        return ~mine
    same = (texts.documents == texts.positives[:, None]) | (texts.documents == texts.queries[:, None])
    mine.zero_().scatter_(1, texts.own[:, :1], True)  # whatever it says, the positive itself stays
    return same & ~mine
