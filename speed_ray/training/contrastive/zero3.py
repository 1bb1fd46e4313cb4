"""Contrastive training where workers share out states and weights: DeepSpeed's ZeRO, stages 1 to 3.

GradCache calls backward once a mini-batch before each step. DeepSpeed's own bookkeeping takes each call for a step's
end at stages 1 and 2, which is silently wrong (error as large as the update itself); without
`managed_gradient_accumulation` only `step` ends one, which is exact at every stage (deepspeed 0.19.8).
"""

import contextlib
from pathlib import Path
from typing import Any

import deepspeed
import torch
from torch import Tensor, nn

from speed_ray.recipes.schema import Embedder
from speed_ray.training import distributed, zero
from speed_ray.training.contrastive import ddp
from speed_ray.training.contrastive.gradcache import Context

STATE = "state"


class Sharded:
    """An encoder with its optimizer; `network` is what embeds."""

    def __init__(self, encoder: nn.Module, settings: Embedder, steps: int) -> None:
        self.encoder = encoder
        self.stage = settings.zero
        optimizer = torch.optim.AdamW(ddp.decayed(encoder, settings.weight_decay), lr=settings.learning_rate)
        self.schedule = ddp.schedule(optimizer, settings, steps)
        config = {**zero.zero_config(settings, micro_batch=1, accumulated=1), "managed_gradient_accumulation": False}
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
        self.network.save_checkpoint(str(folder), tag=STATE)

    def load(self, folder: Path) -> None:
        """Go on from what all workers' `save` wrote."""
        self.network.load_checkpoint(str(folder), tag=STATE)

    def gather(self) -> None:
        """Bring all weights to every worker, whole."""
        if self.stage == 3:
            weights: list[Any] = list(self.encoder.parameters())
            whole = deepspeed.zero.GatheredParameters(weights)
            whole.__enter__()  # for good: training is over
