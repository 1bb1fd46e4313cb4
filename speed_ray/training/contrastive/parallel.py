"""Parallel contrastive training: PyTorch's DistributedDataParallel, or DeepSpeed's ZeRO, stages 1 to 3."""

import contextlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from transformers import get_scheduler

from speed_ray.recipes.schema import Embedder
from speed_ray.training import distributed
from speed_ray.training.contrastive.gradcache import Context

STATE = "state.pt"


class DdpStrategy:
    """An encoder with its optimizer; `network` is what embeds."""

    def __init__(self, encoder: nn.Module, settings: Embedder, steps: int) -> None:
        self.encoder = encoder
        self.clip = settings.clip
        alone = distributed.world_size() == 1
        self.network = encoder if alone else DistributedDataParallel(encoder)
        self.unsynchronised: Context = contextlib.nullcontext if alone else self.network.no_sync
        self.optimizer = torch.optim.AdamW(
            weight_decay_groups(encoder, settings.weight_decay), lr=settings.learning_rate
        )
        self.schedule = learning_rate_schedule(self.optimizer, settings, steps)

    def backward(self, value: Tensor) -> None:
        """Add a gradient; DistributedDataParallel takes the workers' mean where their sum is wanted."""
        (value * distributed.world_size()).backward()

    def step(self) -> float:
        """Change the weights; return the gradient's norm before it was clipped."""
        norm = nn.utils.clip_grad_norm_(trainable_parameters(self.encoder), self.clip)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        return float(norm)

    def save(self, folder: Path) -> None:
        """Write what rank 0 has, which all have, into a folder of its checkpoint."""
        if distributed.rank() == 0:
            weights = {name: weight for name, weight in self.encoder.named_parameters() if weight.requires_grad}
            states = {"optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict()}
            torch.save({"weights": weights, **states}, folder / STATE)

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote."""
        state: dict[str, Any] = torch.load(folder / STATE, map_location="cpu", weights_only=True)
        self.encoder.load_state_dict(state["weights"], strict=False)
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])

    def gather(self) -> None:
        """Bring all weights to rank 0, where they are already."""


def trainable_parameters(encoder: nn.Module) -> list[nn.Parameter]:
    """The weights that change."""
    return [weight for weight in encoder.parameters() if weight.requires_grad]


def weight_decay_groups(encoder: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Split the weights that change in two: matrices decay, biases and norms do not."""
    matrices = [weight for weight in trainable_parameters(encoder) if weight.ndim > 1]
    others = [weight for weight in trainable_parameters(encoder) if weight.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def learning_rate_schedule(optimizer: torch.optim.Optimizer, settings: Embedder, steps: int) -> Any:
    """The recipe's learning rate over so many steps."""
    return get_scheduler(settings.schedule, optimizer, round(settings.warmup * steps), steps)


DEEPSPEED_TAG = "state"


class DeepSpeedStrategy:
    """An encoder with its optimizer; `network` is what embeds."""

    def __init__(self, encoder: nn.Module, settings: Embedder, steps: int) -> None:
        import deepspeed  # compiles when it is first used

        self.encoder = encoder
        self.stage = settings.zero
        optimizer = torch.optim.AdamW(weight_decay_groups(encoder, settings.weight_decay), lr=settings.learning_rate)
        self.schedule = learning_rate_schedule(optimizer, settings, steps)
        config = {
            **distributed.deepspeed_config(settings, micro_batch_size=1, accumulation_steps=1),
            "managed_gradient_accumulation": False,
        }
        self.network, *_ = deepspeed.initialize(
            model=encoder, optimizer=optimizer, lr_scheduler=self.schedule, config=config
        )
        self.unsynchronised: Context = contextlib.nullcontext

    def backward(self, value: Tensor) -> None:
        """Add a gradient; DeepSpeed takes the workers' mean where their sum is wanted."""
        self.network.backward(value * distributed.world_size())

    def step(self) -> float:
        """Change the weights; return the gradient's norm before it was clipped."""
        self.network.step()
        return float(self.network.get_global_grad_norm() or 0.0)

    def save(self, folder: Path) -> None:
        """Write this worker's part into a folder of its checkpoint."""
        self.network.save_checkpoint(str(folder), tag=DEEPSPEED_TAG)

    def load(self, folder: Path) -> None:
        """Go on from what all workers' `save` wrote."""
        self.network.load_checkpoint(str(folder), tag=DEEPSPEED_TAG)

    def gather(self) -> None:
        """Bring all weights to every worker, whole."""
        if self.stage == 3:
            import deepspeed

            weights: list[Any] = list(self.encoder.parameters())
            whole = deepspeed.zero.GatheredParameters(weights)
            whole.__enter__()  # for good: training is over
