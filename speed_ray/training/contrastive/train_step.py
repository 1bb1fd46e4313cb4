"""Take one step of contrastive training: this worker's rows of a global batch -> the gradient of the batch's loss."""

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from speed_ray.training import distributed
from speed_ray.training.contrastive import gradcache, infonce
from speed_ray.training.contrastive.encoder import TokenIds, pad_batch
from speed_ray.training.contrastive.infonce import TextHashes


@dataclass(frozen=True)
class TokenizedExample:
    """The texts of one row: query, positive, negatives. The rows of a batch have equally many negatives.

    `token_ids` has the query with its instruction; `hashes` (`text_hash`) are of the texts without one.
    """

    row_id: str
    token_ids: tuple[TokenIds, ...]
    hashes: tuple[int, ...]


@dataclass(frozen=True)
class ContrastiveConfig:
    """Settings of the loss. `matryoshka_dims` are prefix lengths of an embedding that are each to work alone."""

    temperature: float
    micro_batch_size: int  # texts that are embedded at once
    global_batch_size: int | None = None  # rows of a full batch; null: every batch is a full one
    matryoshka_dims: tuple[int, ...] = ()


def train_step(
    encoder: nn.Module,
    rows: Sequence[TokenizedExample],
    no_in_batch_negatives: bool,
    config: ContrastiveConfig,
    pad_id: int,
    backward: Callable[[Tensor], None],
    no_sync: gradcache.NoSync = contextlib.nullcontext,
    batch_rows: int | None = None,
) -> float:
    """Add the gradient of a global batch's InfoNCE loss to the weights; return the loss, a mean over its queries.

    `rows` are this worker's, equally many on each; of all workers' rows together the first `batch_rows` count, and the
    others are padding. A batch smaller than `global_batch_size` weighs less, so that all rows weigh alike. `encoder`
    maps `input_ids` and `attention_mask`, int64 (texts, longest), to embeddings (texts, width). With Matryoshka
    dimensions (arXiv 2205.13147) the loss is the mean over these prefixes. `backward` takes scalars whose gradients,
    summed over workers, are the gradient of the loss.
    """
    device = next(encoder.parameters()).device
    texts = [ids for column in zip(*(row.token_ids for row in rows), strict=True) for ids in column]
    by_length = sorted(range(len(texts)), key=lambda index: len(texts[index]))  # needs less padding
    batch_rows = batch_rows or len(rows) * distributed.world_size()
    own_rows = min(len(rows), max(0, batch_rows - distributed.rank() * len(rows)))
    hashes, kept = _gather_hashes(rows, batch_rows, own_rows, device)
    weight = batch_rows / (config.global_batch_size or batch_rows)

    def embed(indices: list[int]) -> Tensor:
        batch = pad_batch([texts[index] for index in indices], pad_id)
        vectors: Tensor = encoder(**{name: tensor.to(device) for name, tensor in batch.items()})
        return vectors

    def loss(embeddings: Tensor) -> Tensor:
        queries, own_documents = embeddings.split([len(rows), len(embeddings) - len(rows)])
        documents = gradcache.all_gather_with_gradient(own_documents)[kept]
        losses = [
            infonce.infonce_loss(
                queries[:own_rows, :width], documents[:, :width], hashes, config.temperature, no_in_batch_negatives
            )
            for width in config.matryoshka_dims or (embeddings.shape[1],)
        ]
        return torch.stack(losses).mean() * (weight / batch_rows)

    size = config.micro_batch_size
    micro_batches = [by_length[first : first + size] for first in range(0, len(by_length), size)]
    value = gradcache.gradcache_step(micro_batches, embed, loss, backward, no_sync)
    if dist.is_initialized():
        dist.all_reduce(value)
    return float(value) / weight


def _gather_hashes(
    rows: Sequence[TokenizedExample], batch_rows: int, own_rows: int, device: Any
) -> tuple[TextHashes, Tensor | slice]:
    """Return the hashes of the rows that are no padding, and which of all workers' documents are theirs."""
    hashes = torch.tensor([row.hashes for row in rows], device=device).T  # (query, positive, negatives; rows)
    documents, own = gradcache.all_gather_with_gradient(hashes[1:].flatten()), len(rows) * (len(hashes) - 1)
    first = distributed.rank() * own
    indices = torch.arange(first, first + own, device=device).view(-1, len(rows)).T[:own_rows].contiguous()
    kept: Tensor | slice = slice(None)
    if batch_rows < len(rows) * distributed.world_size():
        row_of = torch.arange(len(documents), device=device).view(distributed.world_size(), -1, len(rows))
        row_of = torch.arange(distributed.world_size(), device=device).view(-1, 1, 1) * len(rows) + row_of % len(rows)
        is_kept = row_of.flatten() < batch_rows
        kept, indices = is_kept.nonzero().flatten(), (is_kept.cumsum(0) - 1)[indices]
    return TextHashes(hashes[0, :own_rows], hashes[1, :own_rows], documents[kept], indices), kept


def text_hash(text: str) -> int:
    """Hash a text to a signed 64-bit integer, the same on every worker."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)
