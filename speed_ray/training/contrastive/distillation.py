"""Compute the losses by which an embedder learns a judge's scores of each query's own candidates.

    KL         sum over d of p(d) log( p(d) / q(d) ), where p and q are the softmax of judge's and embedder's logits
    MarginMSE  mean over d- of ( s(d+) - s(d-) - j(d+) + j(d-) )^2, where j is the judge's score

An embedder's logit s is the cosine of query and candidate over the temperature; candidates are the positive, d+, and
the row's own other texts, d-: its further positives and its negatives. KL is as in CADET (arXiv 2505.19274), MarginMSE
as in arXiv 2010.02666.
"""

from torch import Tensor
from torch.nn.functional import cosine_similarity


def candidate_logits(queries: Tensor, candidates: Tensor, temperature: float) -> Tensor:
    """Compute the embedder's logits (n, candidates) of queries (n, width) and candidates (candidates, n, width)."""
    return cosine_similarity(queries, candidates, dim=-1).T / temperature


def kl_losses(logits: Tensor, teacher: Tensor) -> Tensor:
    """Compute each query's loss (n,) of both sides' logits (n, candidates); 0 where the positive is alone."""
    wanted, found = teacher.log_softmax(1), logits.log_softmax(1)
    return (wanted.exp() * (wanted - found)).sum(1)


def margin_mse_losses(logits: Tensor, teacher: Tensor) -> Tensor:
    """Compute each query's loss (n,) of logits and scores (n, candidates); 0 where the positive is alone."""
    errors = (logits - teacher)[:, :1] - (logits - teacher)[:, 1:]
    return errors.square().sum(1) / max(1, errors.shape[1])
