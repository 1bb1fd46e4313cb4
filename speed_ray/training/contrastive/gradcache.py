"""GradCache: the exact gradient of a loss over a whole global batch, with one mini-batch's activations in memory.

Every text is embedded twice: first without a graph, so that the loss and its gradient by the embeddings can be taken
over all of them; then, mini-batch by mini-batch and under the same random numbers, with a graph that carries this
gradient on into the weights (https://arxiv.org/abs/2101.06983).
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

Embed = Callable[[list[int]], Tensor]  # the places of a mini-batch's texts -> their embeddings (texts, width)
Backward = Callable[[Tensor], None]  # of a scalar
Context = Callable[[], contextlib.AbstractContextManager[Any]]


@dataclass(frozen=True)
class RandomState:
    """The state of the random numbers that dropout draws from, on the CPU and on this worker's GPU."""

    cpu: Tensor
    gpu: Tensor | None

    @staticmethod
    def now() -> "RandomState":
        """Remember the current one."""
        return RandomState(torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_available() else None)

    @contextlib.contextmanager
    def again(self) -> Iterator[None]:
        """Draw once more what was drawn after this state; afterwards go on as if nothing had been."""
        devices = [] if self.gpu is None else [torch.cuda.current_device()]
        with torch.random.fork_rng(devices):
            torch.set_rng_state(self.cpu)
            if self.gpu is not None:
                torch.cuda.set_rng_state(self.gpu)
            yield


def gradcache_step(
    batches: Sequence[list[int]],
    embed: Embed,
    loss: Callable[[Tensor], Tensor],
    backward: Backward,
    unsynchronised: Context = contextlib.nullcontext,
) -> Tensor:
    """Add the gradient of `loss(all embeddings)` to the weights; return the loss, detached.

    `batches` are the places of this worker's texts, from 0 on, in whatever order they are embedded; `loss` gets the
    embeddings in the order of the places, fp32, and may hold them against those of other workers
    (`all_gather_with_gradient`). All mini-batches but the last are carried on within `unsynchronised`, for
    DistributedDataParallel its no_sync: the workers' gradients meet once.
    """
    states, leaf = _embed_without_graph(batches, embed)
    value = loss(leaf)
    value.backward()
    assert leaf.grad is not None
    for batch, state in zip(batches, states, strict=True):
        with contextlib.nullcontext() if batch is batches[-1] else unsynchronised():
            with state.again():
                again = embed(batch)
            backward((again.float() * leaf.grad[batch]).sum())
    return value.detach()


@torch.no_grad()
def _embed_without_graph(batches: Sequence[list[int]], embed: Embed) -> tuple[list[RandomState], Tensor]:
    """Embed all texts, each put in its place at once: of a large batch even one copy more counts."""
    states, everything = [], torch.empty(0)
    for batch in batches:
        states.append(RandomState.now())
        vectors = embed(batch)
        if not len(everything):
            texts = sum(len(each) for each in batches)
            everything = vectors.new_empty((texts, vectors.shape[1]), dtype=torch.float32)
        everything[batch] = vectors.float()
    return states, everything.requires_grad_()


class _AllGather(torch.autograd.Function):
    """All workers' rows in the order of their ranks. Every worker's loss reaches every row: gradients are summed."""

    @staticmethod
    def forward(context: Any, rows: Tensor) -> Tensor:
        context.count = len(rows)
        everybodys = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(everybodys, rows.contiguous())
        return torch.cat(everybodys)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        first = dist.get_rank() * context.count
        return gradient[first : first + context.count]


def all_gather_with_gradient(rows: Tensor) -> Tensor:
    """Return every worker's rows (equally many on each), with gradients that flow back to the worker they are from."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return rows
    result: Tensor = _AllGather.apply(rows)
    return result
