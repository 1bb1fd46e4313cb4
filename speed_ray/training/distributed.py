"""Collectives among the workers of a training (torchrun's, Ray Train's, or one process), and DeepSpeed's config."""

import os
import socket
from typing import Any

import torch
import torch.distributed as dist

from speed_ray.engines.half_precision import warn_of_slow_cpu
from speed_ray.errors import UserError
from speed_ray.recipes.training_settings import TrainingConfig
from speed_ray.training.compiled_extensions import load_collectives


def prepare_environment(settings: TrainingConfig, key: str) -> None:
    """Set the variables that DeepSpeed reads: the device, and a process group even of one. Raises UserError.

    `key` is the recipe's of these settings, for messages.
    """
    if settings.workers.num_gpus and not torch.cuda.is_available():
        raise UserError(
            f"workers.num_gpus is {settings.workers.num_gpus:g}, but this machine has no GPU that PyTorch sees.\n"
            "Set the training's workers.num_gpus to 0 to train on CPUs, or run it where there are GPUs."
        )
    if not settings.workers.num_gpus:
        os.environ["DS_ACCELERATOR"] = "cpu"
        if settings.precision == "bf16" and rank() == 0:
            warn_of_slow_cpu(f"{key}.precision", "bfloat16", "fp32")
    if settings.zero_stage:
        load_collectives()
    if settings.zero_stage and "RANK" not in os.environ:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        single = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in single.items()})


def rank() -> int:
    """Return this worker's rank."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Return the number of workers."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def first_of_node() -> int:
    """Return the rank of the first worker on this node; launchers give a node consecutive ranks."""
    return rank() - int(os.environ.get("LOCAL_RANK", "0"))


def is_first_of_node() -> bool:
    """Return True for the one worker that does what is done once on every node."""
    return first_of_node() == rank()


def broadcast(value: Any) -> Any:
    """Return rank 0's value on every worker."""
    if not dist.is_initialized():
        return value
    shared = [value]
    dist.broadcast_object_list(shared)
    return shared[0]


def all_agree(flag: bool) -> bool:
    """Return True where the flag is true on every worker."""
    if not dist.is_initialized():
        return flag
    flags = [False] * world_size()
    dist.all_gather_object(flags, flag)
    return all(flags)


def barrier() -> None:
    """Wait until every worker calls this."""
    if dist.is_initialized():
        dist.barrier()


def init_process_group(gpus: float) -> None:
    """Join the process group of all workers, unless the launcher did."""
    if world_size() > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if gpus else "gloo")


def device(gpus: float) -> torch.device:
    """Return the device of this worker."""
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if gpus else torch.device("cpu")


def destroy_process_group() -> None:
    """Leave the process group: its threads, left running, may abort a process that has done its work."""
    if dist.is_initialized():
        dist.destroy_process_group()


def deepspeed_config(settings: TrainingConfig, micro_batch_size: int, accumulation_steps: int) -> dict[str, Any]:
    """Return DeepSpeed's configuration; a worker accumulates `accumulation_steps` micro-batches in a step."""
    zero: dict[str, Any] = {"stage": settings.zero_stage, "stage3_gather_16bit_weights_on_model_save": True}
    if settings.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": bool(settings.workers.num_gpus)}
    if settings.offload_param:
        zero["offload_param"] = {"device": "cpu", "pin_memory": bool(settings.workers.num_gpus)}
    return {
        "train_micro_batch_size_per_gpu": micro_batch_size,
        "gradient_accumulation_steps": accumulation_steps,
        "gradient_clipping": settings.max_grad_norm,  # left out it would be 1.0 (deepspeed 0.19.8)
        "bf16": {"enabled": settings.precision == "bf16"},
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,  # PyTorch's AdamW
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 1_000_000_000,
    }
