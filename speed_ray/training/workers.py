"""The workers of one training, as torch.distributed knows them: torchrun's or Ray Train's, or this process alone."""

import os
from typing import Any

import torch.distributed as dist


def rank() -> int:
    """This worker's number."""
    return int(os.environ.get("RANK", "0"))


def world() -> int:
    """How many workers there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_of_node() -> bool:
    """Whether this worker does what is done once on every machine."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def share(value: Any) -> Any:
    """Return rank 0's value on every worker."""
    if not dist.is_initialized():
        return value
    shared = [value]
    dist.broadcast_object_list(shared)
    return shared[0]


def all_agree(flag: bool) -> bool:
    """Whether the flag is true on every worker."""
    if not dist.is_initialized():
        return flag
    flags = [False] * world()
    dist.all_gather_object(flags, flag)
    return all(flags)


def wait() -> None:
    """Go on when every worker is here."""
    if dist.is_initialized():
        dist.barrier()


def leave() -> None:
    """End what torch.distributed started: its threads, left running, may abort a process that has done its work."""
    if dist.is_initialized():
        dist.destroy_process_group()
