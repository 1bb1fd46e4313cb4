"""GradCache (Gao et al., arXiv 2101.06983): the gradient of a loss over a whole batch, in one micro-batch's memory.

Every text is embedded twice: first without a graph, to take the loss over all embeddings and its gradient with respect
to them; then micro-batch by micro-batch with a graph and the same random numbers, to backpropagate this gradient into
the weights. The gradient is exact, dropout included.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

Embed = Callable[[list[int]], Tensor]  # indices of a micro-batch's texts -> their embeddings (texts, width)
Backward = Callable[[Tensor], None]  # takes a scalar
NoSync = Callable[[], contextlib.AbstractContextManager[Any]]


@dataclass(frozen=True)
class RandomState:
    """The states of the random generators that dropout draws from: the CPU's, and this worker's GPU's."""

    cpu: Tensor
    gpu: Tensor | None = None

    @staticmethod
    def capture() -> "RandomState":
        """Return the current states."""
        return RandomState(torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_available() else None)

    def restore(self) -> None:
        """Set the generators to these states."""
        torch.set_rng_state(self.cpu)
        if self.gpu is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(self.gpu)

    @contextlib.contextmanager
    def replay(self) -> Iterator[None]:
        """Draw the same random numbers again; restore the generators afterwards."""
        devices = [] if self.gpu is None else [torch.cuda.current_device()]
        with torch.random.fork_rng(devices):
            self.restore()
            yield


def gradcache_step(
    micro_batches: Sequence[list[int]],
    embed: Embed,
    loss: Callable[[Tensor], Tensor],
    backward: Backward,
    no_sync: NoSync = contextlib.nullcontext,
) -> Tensor:
    """Add the gradient of `loss(embeddings)` to the weights; return the loss, a detached scalar.

    `micro_batches` holds the indices of this worker's texts, each once, in any order. `loss` takes the embeddings in
    the order of the indices, fp32 (texts, width), and may gather those of other workers (`all_gather_with_gradient`).
    All micro-batches but the last backpropagate within `no_sync`, DistributedDataParallel's, so that gradients are
    reduced once.
    """
    states, embeddings = _embed_without_graph(micro_batches, embed)
    value = loss(embeddings)
    value.backward()
    assert embeddings.grad is not None
    for batch, state in zip(micro_batches, states, strict=True):
        with contextlib.nullcontext() if batch is micro_batches[-1] else no_sync():
            with state.replay():
                again = embed(batch)
            backward((again.float() * embeddings.grad[batch]).sum())
    return value.detach()


@torch.no_grad()
def _embed_without_graph(micro_batches: Sequence[list[int]], embed: Embed) -> tuple[list[RandomState], Tensor]:
    """Embed all texts into one leaf tensor; written in place, because a large batch leaves no room for a copy."""
    states, embeddings = [], torch.empty(0)
    for batch in micro_batches:
        states.append(RandomState.capture())
        vectors = embed(batch)
        if not len(embeddings):
            texts = sum(len(each) for each in micro_batches)
            embeddings = vectors.new_empty((texts, vectors.shape[1]), dtype=torch.float32)
        embeddings[batch] = vectors.float()
    return states, embeddings.requires_grad_()


class _AllGather(torch.autograd.Function):
    """All-gather whose backward pass sums the gradients of all workers: each worker's loss depends on every row."""

    @staticmethod
    def forward(context: Any, rows: Tensor) -> Tensor:
        context.count = len(rows)
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        first = dist.get_rank() * context.count
        return gradient[first : first + context.count]


def all_gather_with_gradient(rows: Tensor) -> Tensor:
    """Concatenate all workers' rows by rank: (n, ...) -> (n * workers, ...), any dtype. Gradients flow back."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return rows
    result: Tensor = _AllGather.apply(rows)
    return result
