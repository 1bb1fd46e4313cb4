"""Take one step of contrastive training: this worker's rows of a global batch -> the gradient of the batch's loss."""

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from speed_ray.training import distributed
from speed_ray.training.contrastive import gradcache
from speed_ray.training.contrastive.batch_loss import BatchLoss, ContrastiveConfig
from speed_ray.training.contrastive.encoder import TokenIds, pad_batch
from speed_ray.training.contrastive.guide import GuideModel, GuideVectors
from speed_ray.training.contrastive.infonce import TextHashes
from speed_ray.training.contrastive.judge_scores import NO_TARGET, Target


@dataclass(frozen=True)
class TokenizedExample:
    """The texts of one row: query, positives, negatives. The rows of a batch have equally many of each.

    `token_ids` has the query with its instruction; `hashes` (`text_hash`) are of the texts without one. `texts` are
    these too, and there for a guide alone.
    """

    row_id: str
    token_ids: tuple[TokenIds, ...]
    hashes: tuple[int, ...]
    target: Target = NO_TARGET
    texts: tuple[str, ...] = ()
    positives: int = 1


class _Documents(NamedTuple):
    """Select this worker's documents that are of rows without padding, and of all workers' those that are."""

    own: Tensor  # int64 (n, positives + negatives): indices into the kept documents
    kept: Tensor | slice  # of all workers' documents


def train_step(
    encoder: nn.Module,
    rows: Sequence[TokenizedExample],
    no_in_batch_negatives: bool,
    config: ContrastiveConfig,
    pad_id: int,
    backward: Callable[[Tensor], None],
    no_sync: gradcache.NoSync = contextlib.nullcontext,
    batch_rows: int | None = None,
    guide: GuideModel | None = None,
) -> float:
    """Add the gradient of a global batch's loss to the weights; return the loss, a mean over its queries.

    `rows` are this worker's, equally many on each; of all workers' rows together the first `batch_rows` count, and the
    others are padding. A batch smaller than `global_batch_size` weighs less, so that all rows weigh alike. `encoder`
    maps `input_ids` and `attention_mask`, int64 (texts, longest), to embeddings (texts, width). `backward` takes
    scalars whose gradients, summed over workers, are the gradient of the loss.
    """
    device = next(encoder.parameters()).device
    texts = [ids for column in zip(*(row.token_ids for row in rows), strict=True) for ids in column]
    by_length = sorted(range(len(texts)), key=lambda index: len(texts[index]))  # needs less padding
    batch_rows = batch_rows or len(rows) * distributed.world_size()
    batch_loss = _batch_loss(rows, no_in_batch_negatives, config, batch_rows, guide, device)
    weight = batch_rows / (config.global_batch_size or batch_rows)

    def embed(indices: list[int]) -> Tensor:
        batch = pad_batch([texts[index] for index in indices], pad_id)
        vectors: Tensor = encoder(**{name: tensor.to(device) for name, tensor in batch.items()})
        return vectors

    def loss(embeddings: Tensor) -> Tensor:
        return batch_loss(embeddings) * (weight / batch_rows)

    size = config.micro_batch_size
    micro_batches = [by_length[first : first + size] for first in range(0, len(by_length), size)]
    value = gradcache.gradcache_step(micro_batches, embed, loss, backward, no_sync)
    if dist.is_initialized():
        dist.all_reduce(value)
    return float(value) / weight


def _batch_loss(
    rows: Sequence[TokenizedExample],
    no_in_batch_negatives: bool,
    config: ContrastiveConfig,
    batch_rows: int,
    guide: GuideModel | None,
    device: torch.device,
) -> BatchLoss:
    """Gather what the loss needs of all workers' rows beside their embeddings."""
    own_rows = min(len(rows), max(0, batch_rows - distributed.rank() * len(rows)))
    hashes = torch.tensor([row.hashes for row in rows], device=device).T  # (query, positives, negatives; rows)
    documents = _select_documents(len(rows), len(hashes) - 1, own_rows, batch_rows, device)
    gathered = gradcache.all_gather_with_gradient(hashes[1:].flatten())[documents.kept]
    positives = hashes[1 : 1 + rows[0].positives, :own_rows].T
    return BatchLoss(
        config,
        no_in_batch_negatives,
        len(rows),
        TextHashes(hashes[0, :own_rows], positives, gathered, documents.own),
        documents.kept,
        weights=torch.tensor([row.target.weight for row in rows], device=device)[:own_rows],
        teacher=torch.tensor([row.target.scores for row in rows], device=device)[:own_rows],
        guide=_guide_vectors(guide, rows, own_rows, documents, device) if guide else None,
    )


def _select_documents(rows: int, columns: int, own_rows: int, batch_rows: int, device: torch.device) -> _Documents:
    """Index the documents of `rows` rows on each worker, `columns` a row, of which the batch's first rows count."""
    world, own = distributed.world_size(), rows * columns
    first = distributed.rank() * own
    indices = torch.arange(first, first + own, device=device).view(-1, rows).T[:own_rows].contiguous()
    if batch_rows == rows * world:
        return _Documents(indices, slice(None))
    row_of = torch.arange(world, device=device).view(-1, 1) * rows + torch.arange(own, device=device) % rows
    is_kept = row_of.flatten() < batch_rows
    return _Documents((is_kept.cumsum(0) - 1)[indices], is_kept.nonzero().flatten())


def _guide_vectors(
    guide: GuideModel, rows: Sequence[TokenizedExample], own_rows: int, selected: _Documents, device: torch.device
) -> GuideVectors:
    """Embed this worker's texts by the guide, and gather those of all workers' documents."""
    asked, *columns = zip(*(row.texts for row in rows), strict=True)
    queries = guide.embed(asked, "query").to(device)[:own_rows]
    own_documents = guide.embed([text for column in columns for text in column], "document").to(device)
    documents = gradcache.all_gather_with_gradient(own_documents)[selected.kept]
    similarities = (queries * documents[selected.own[:, 0]]).sum(1)
    return GuideVectors(queries, documents, guide.bounds(similarities))


def text_hash(text: str) -> int:
    """Hash a text to a signed 64-bit integer, the same on every worker."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)
