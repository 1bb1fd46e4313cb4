"""A worker of test_gradcache.py: a share of a fixed batch, and the gradient that all workers come to together."""

import sys
from contextlib import nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from speed_ray.training import gradcache, infonce
from speed_ray.training.infonce import Texts

QUERIES, WIDTH = 8, 16
# Two queries have one text as their answer, and one query's text is another's negative.
HASHES = {"queries": [0, 1, 2, 3, 4, 5, 6, 7], "positives": [10, 11, 12, 13, 14, 15, 16, 10]}
NEGATIVES = [20, 21, 22, 3, 24, 25, 26, 27]


def texts(mine: slice, documents: list[int], own: Tensor) -> Texts:
    queries, positives = (torch.tensor(HASHES[name][mine]) for name in ("queries", "positives"))
    return Texts(queries, positives, torch.tensor(documents), own)


TEXTS = texts(
    slice(None),
    HASHES["positives"] + NEGATIVES,
    torch.stack([torch.arange(QUERIES), QUERIES + torch.arange(QUERIES)], dim=1),
)


def tokens() -> Tensor:
    """Token ids (24, 5): all queries, then all positives, then all negatives."""
    return torch.randint(0, 50, (3 * QUERIES, 5), generator=torch.Generator().manual_seed(3))


def network(dropout: float) -> nn.Module:
    torch.manual_seed(0)
    bag = nn.EmbeddingBag(50, 32)
    return nn.Sequential(
        bag, nn.Dropout(dropout), nn.Linear(32, 32), nn.Tanh(), nn.Dropout(dropout), nn.Linear(32, WIDTH)
    )


def by_cache(dropout: float) -> dict[str, Tensor]:
    """The gradient on this worker, after all have done their share."""
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    each = QUERIES // world
    mine = slice(rank * each, (rank + 1) * each)
    model = network(dropout)
    shared = DistributedDataParallel(model) if world > 1 else model
    # Documents of worker r: its positives, then its negatives.
    order = [kind * QUERIES + r * each + i for r in range(world) for kind in (1, 2) for i in range(each)]
    hashes = [([0] * QUERIES + HASHES["positives"] + NEGATIVES)[place] for place in order]
    first = rank * 2 * each
    own = torch.stack([first + torch.arange(each), first + each + torch.arange(each)], dim=1)
    known = texts(mine, hashes, own)

    def loss(embedded: Tensor) -> Tensor:
        documents = gradcache.gathered(embedded[each:])
        return infonce.loss(embedded[:each], documents, known, 0.05, own_negatives_only=False) / QUERIES

    def backward(value: Tensor) -> None:
        (value * world).backward()  # DistributedDataParallel averages

    torch.manual_seed(1)
    rows = tokens().view(3, QUERIES, -1)[:, mine].flatten(0, 1)
    unsynchronised = shared.no_sync if world > 1 else nullcontext
    gradcache.step(list(rows.split(2)), shared, loss, backward, unsynchronised)
    return {name: weight.grad for name, weight in model.named_parameters()}


if __name__ == "__main__":
    dist.init_process_group("gloo")
    torch.save(by_cache(0.0), f"{sys.argv[1]}/{dist.get_rank()}.pt")
    dist.destroy_process_group()
