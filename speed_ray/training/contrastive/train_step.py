"""One step of contrastive training: this worker's rows of a global batch -> the gradient of the whole batch's loss."""

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
    """One example: its query, its positive, then its negatives, of which rows of a batch have equally many.

    `texts` are token ids, the query's with its instruction before it; `hashes` are of the texts alone, int64.
    """

    row_id: str
    texts: tuple[TokenIds, ...]
    hashes: tuple[int, ...]


@dataclass(frozen=True)
class ContrastiveConfig:
    """What is made small. `dimensions` are the first so many of a vector that must do alone as well (Matryoshka)."""

    temperature: float
    mini_batch: int  # texts that are embedded at once
    dimensions: tuple[int, ...] = ()


def train_step(
    encoder: nn.Module,
    rows: Sequence[TokenizedExample],
    own_negatives_only: bool,
    objective: ContrastiveConfig,
    pad: int,
    backward: Callable[[Tensor], None],
    unsynchronised: gradcache.Context = contextlib.nullcontext,
) -> float:
    """Add the batch's gradient to the weights; return its loss, a mean over all workers' queries.

    Every worker calls this with equally many rows. Texts of like length are embedded together. `backward` gets what
    sums up over the workers to the gradient; where those average, it must be multiplied by how many they are.
    """
    device = next(encoder.parameters()).device
    texts = [text for column in zip(*(row.texts for row in rows), strict=True) for text in column]
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    known = _gather_hashes(rows, device)
    queries = len(rows) * distributed.world_size()

    def embed(places: list[int]) -> Tensor:
        batch = pad_batch([texts[place] for place in places], pad)
        vectors: Tensor = encoder(**{name: tensor.to(device) for name, tensor in batch.items()})
        return vectors

    def loss(embedded: Tensor) -> Tensor:
        asked, own = embedded.split([len(rows), len(embedded) - len(rows)])
        documents = gradcache.all_gather_with_gradient(own)
        parts = [
            infonce.infonce_loss(
                asked[:, :width], documents[:, :width], known, objective.temperature, own_negatives_only
            )
            for width in objective.dimensions or (embedded.shape[1],)
        ]
        return torch.stack(parts).mean() / queries

    size = objective.mini_batch
    batches = [order[first : first + size] for first in range(0, len(order), size)]
    value = gradcache.gradcache_step(batches, embed, loss, backward, unsynchronised)
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
    """Know a text again on any worker: 64 bits of its hash, as a signed number."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)
