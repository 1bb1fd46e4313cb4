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

Embed = Callable[[Any], Tensor]  # a mini-batch of texts as the model takes it -> their embeddings (texts, width)
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


def step(
    batches: Sequence[Any],
    embed: Embed,
    loss: Callable[[Tensor], Tensor],
    backward: Backward,
    unsynchronised: Context = contextlib.nullcontext,
) -> Tensor:
    """Add the gradient of `loss(all embeddings)` to the weights; return the loss, detached.

    `batches` are this worker's texts, mini-batch by mini-batch; `loss` gets their embeddings one after the other, and
    may hold them against those of other workers (`gathered`). All mini-batches but the last are carried on within
    `unsynchronised`, for DistributedDataParallel its no_sync: the workers' gradients meet once.
    """
    states, embedded = [], []
    for batch in batches:
        states.append(RandomState.now())
        with torch.no_grad():
            embedded.append(embed(batch))
    sizes = [len(each) for each in embedded]
    leaf = torch.cat(embedded).float().requires_grad_()
    embedded.clear()  # one copy is enough
    value = loss(leaf)
    value.backward()
    assert leaf.grad is not None
    gradients = leaf.grad.split(sizes)
    for place, (batch, state, gradient) in enumerate(zip(batches, states, gradients, strict=True)):
        last = place == len(batches) - 1
        with contextlib.nullcontext() if last else unsynchronised():
            with state.again():
                again = embed(batch)
            backward((again.float() * gradient).sum())
    return value.detach()


class _Gathered(torch.autograd.Function):
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


def gathered(rows: Tensor) -> Tensor:
    """Return every worker's rows (equally many on each), with gradients that flow back to the worker they are from."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return rows
    result: Tensor = _Gathered.apply(rows)
    return result
