"""Contrastive training on several workers: PyTorch's DistributedDataParallel, or DeepSpeed's ZeRO stages 1 to 3.

A worker's loss is its part of a sum over all workers (train_step.py), while both libraries average gradients, so
`backward` multiplies by the number of workers.
"""

import contextlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from transformers import get_scheduler

from speed_ray.recipes.training_settings import Embedder
from speed_ray.training import distributed
from speed_ray.training.contrastive.gradcache import NoSync

STATE_FILE = "state.pt"
DEEPSPEED_TAG = "state"


class DdpStrategy:
    """Trains an encoder that every worker holds whole. `network` is the encoder to call in a step."""

    def __init__(self, encoder: nn.Module, settings: Embedder, steps: int) -> None:
        self.encoder = encoder
        self.max_grad_norm = settings.max_grad_norm
        is_alone = distributed.world_size() == 1
        self.network = encoder if is_alone else DistributedDataParallel(encoder)
        self.no_sync: NoSync = contextlib.nullcontext if is_alone else self.network.no_sync
        self.optimizer = make_optimizer(encoder, settings)
        self.schedule = make_schedule(self.optimizer, settings, steps)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a scalar, a worker's part of the sum over workers, to the parameters' gradients."""
        (loss * distributed.world_size()).backward()

    def step(self) -> float:
        """Clip the gradients and update the parameters; return the gradient's norm before clipping."""
        norm = nn.utils.clip_grad_norm_(trainable_parameters(self.encoder), self.max_grad_norm)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        return float(norm)

    def save(self, folder: Path) -> None:
        """Write parameters, optimizer and schedule to a checkpoint's folder, as rank 0."""
        if distributed.rank() == 0:
            weights = {name: weight for name, weight in self.encoder.named_parameters() if weight.requires_grad}
            states = {"optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict()}
            torch.save({"weights": weights, **states}, folder / STATE_FILE)

    def load(self, folder: Path) -> None:
        """Restore what `save` wrote."""
        state: dict[str, Any] = torch.load(folder / STATE_FILE, map_location="cpu", weights_only=True)
        self.encoder.load_state_dict(state["weights"], strict=False)
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])

    def gather_weights(self) -> None:
        """Do nothing: every worker holds all weights."""


class DeepSpeedStrategy:
    """Trains an encoder with states sharded over the workers (ZeRO). `network` is the encoder to call in a step.

    GradCache calls backward once for each micro-batch. At stages 1 and 2 DeepSpeed takes every call for the last of a
    step, which is silently wrong (an error as large as the update itself); with `managed_gradient_accumulation` off
    only `step` ends a step, which is exact at every stage (deepspeed 0.19.8).
    """

    def __init__(self, encoder: nn.Module, settings: Embedder, steps: int) -> None:
        import deepspeed  # here, because it compiles when it is first imported

        self.encoder = encoder
        self.stage = settings.zero_stage
        optimizer = make_optimizer(encoder, settings)
        self.schedule = make_schedule(optimizer, settings, steps)
        config = distributed.deepspeed_config(settings, micro_batch_size=1, accumulation_steps=1)
        self.network, *_ = deepspeed.initialize(
            model=encoder,
            optimizer=optimizer,
            lr_scheduler=self.schedule,
            config={**config, "managed_gradient_accumulation": False},
        )
        self.no_sync: NoSync = contextlib.nullcontext

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a scalar, a worker's part of the sum over workers, to the sharded gradients."""
        self.network.backward(loss * distributed.world_size())

    def step(self) -> float:
        """Clip the gradients and update the parameters; return the gradient's norm before clipping."""
        self.network.step()
        return float(self.network.get_global_grad_norm() or 0.0)

    def save(self, folder: Path) -> None:
        """Write this worker's shard of the states to a checkpoint's folder."""
        self.network.save_checkpoint(str(folder), tag=DEEPSPEED_TAG)

    def load(self, folder: Path) -> None:
        """Restore what `save` wrote on all workers."""
        self.network.load_checkpoint(str(folder), tag=DEEPSPEED_TAG)

    def gather_weights(self) -> None:
        """Gather the sharded weights on every worker, for good."""
        if self.stage == 3:
            import deepspeed

            deepspeed.zero.GatheredParameters(list(self.encoder.parameters())).__enter__()


def trainable_parameters(encoder: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that are not frozen."""
    return [weight for weight in encoder.parameters() if weight.requires_grad]


def make_optimizer(encoder: nn.Module, settings: Embedder) -> torch.optim.Optimizer:
    """Make AdamW with weight decay on matrices, and none on biases and norms."""
    parameters = trainable_parameters(encoder)
    groups = [
        {"params": [weight for weight in parameters if weight.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [weight for weight in parameters if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=settings.learning_rate)


def make_schedule(optimizer: torch.optim.Optimizer, settings: Embedder, steps: int) -> Any:
    """Make the recipe's learning rate schedule over `steps` steps."""
    return get_scheduler(settings.lr_scheduler_type, optimizer, round(settings.warmup_ratio * steps), steps)
