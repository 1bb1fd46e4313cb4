"""Contrastive training where each worker holds all weights: PyTorch's DistributedDataParallel, or one alone."""

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


class Replicated:
    """An encoder with its optimizer; `network` is what embeds."""

    def __init__(self, encoder: nn.Module, settings: Embedder, steps: int) -> None:
        self.encoder = encoder
        self.clip = settings.clip
        alone = distributed.world_size() == 1
        self.network = encoder if alone else DistributedDataParallel(encoder)
        self.unsynchronised: Context = contextlib.nullcontext if alone else self.network.no_sync
        self.optimizer = torch.optim.AdamW(decayed(encoder, settings.weight_decay), lr=settings.learning_rate)
        self.schedule = schedule(self.optimizer, settings, steps)

    def backward(self, value: Tensor) -> None:
        """Add a gradient; DistributedDataParallel takes the workers' mean where their sum is wanted."""
        (value * distributed.world_size()).backward()

    def step(self) -> float:
        """Change the weights; return the gradient's norm before it was clipped."""
        norm = nn.utils.clip_grad_norm_(trained(self.encoder), self.clip)
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


def trained(encoder: nn.Module) -> list[nn.Parameter]:
    """The weights that change."""
    return [weight for weight in encoder.parameters() if weight.requires_grad]


def decayed(encoder: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Split the weights that change in two: matrices decay, biases and norms do not."""
    matrices = [weight for weight in trained(encoder) if weight.ndim > 1]
    others = [weight for weight in trained(encoder) if weight.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def schedule(optimizer: torch.optim.Optimizer, settings: Embedder, steps: int) -> Any:
    """The recipe's learning rate over so many steps."""
    return get_scheduler(settings.schedule, optimizer, round(settings.warmup * steps), steps)
