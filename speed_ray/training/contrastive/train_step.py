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
    matryoshka_dims: tuple[int, ...] = ()


def train_step(
    encoder: nn.Module,
    rows: Sequence[TokenizedExample],
    no_in_batch_negatives: bool,
    config: ContrastiveConfig,
    pad_id: int,
    backward: Callable[[Tensor], None],
    no_sync: gradcache.NoSync = contextlib.nullcontext,
) -> float:
    """Add the gradient of a global batch's InfoNCE loss to the weights; return the loss, a mean over its queries.

    `rows` are this worker's, equally many on each. `encoder` maps `input_ids` and `attention_mask`, int64 (texts,
    longest), to embeddings (texts, width). With Matryoshka dimensions (arXiv 2205.13147) the loss is the mean over
    these prefixes. `backward` takes scalars whose gradients, summed over workers, are the gradient of the loss.
    """
    device = next(encoder.parameters()).device
    texts = [ids for column in zip(*(row.token_ids for row in rows), strict=True) for ids in column]
    by_length = sorted(range(len(texts)), key=lambda index: len(texts[index]))  # needs less padding
    hashes = _gather_hashes(rows, device)
    all_queries = len(rows) * distributed.world_size()

    def embed(indices: list[int]) -> Tensor:
        batch = pad_batch([texts[index] for index in indices], pad_id)
        vectors: Tensor = encoder(**{name: tensor.to(device) for name, tensor in batch.items()})
        return vectors

    def loss(embeddings: Tensor) -> Tensor:
        queries, own_documents = embeddings.split([len(rows), len(embeddings) - len(rows)])
        documents = gradcache.all_gather_with_gradient(own_documents)
        losses = [
            infonce.infonce_loss(
                queries[:, :width], documents[:, :width], hashes, config.temperature, no_in_batch_negatives
            )
            for width in config.matryoshka_dims or (embeddings.shape[1],)
        ]
        return torch.stack(losses).mean() / all_queries

    size = config.micro_batch_size
    micro_batches = [by_length[first : first + size] for first in range(0, len(by_length), size)]
    value = gradcache.gradcache_step(micro_batches, embed, loss, backward, no_sync)
    if dist.is_initialized():
        dist.all_reduce(value)
    return float(value)


def _gather_hashes(rows: Sequence[TokenizedExample], device: Any) -> TextHashes:
    hashes = torch.tensor([row.hashes for row in rows], device=device).T  # (query, positive, negatives; rows)
    documents = hashes[1:].flatten()
    first = distributed.rank() * len(documents)
    own = torch.arange(first, first + len(documents), device=device).view(-1, len(rows)).T.contiguous()
    return TextHashes(hashes[0], hashes[1], gradcache.all_gather_with_gradient(documents), own)


def text_hash(text: str) -> int:
    """Hash a text to a signed 64-bit integer, the same on every worker."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)
