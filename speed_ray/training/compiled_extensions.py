"""Compile what DeepSpeed's collectives on CPUs run, by one process of this machine at a time.

PyTorch locks an extension by a file that its owner deletes. Of an owner that was killed it stays, and every later
training on the machine waits for it for ever. A `flock` ends with its process: who has it may delete such a file.
"""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from torch.utils.cpp_extension import get_default_build_root

COLLECTIVES = "ShareMemCommBuilder"


def load_collectives() -> None:
    """Load DeepSpeed's collectives, compiled if they are not yet; DeepSpeed then finds them loaded.

    Does nothing where DeepSpeed would not use them: on GPUs, or on a CPU that cannot run them.
    """
    import deepspeed  # here, because it takes seconds and only ZeRO needs it
    from deepspeed.accelerator import get_accelerator

    builder = get_accelerator().create_op_builder(COLLECTIVES)
    if builder is not None and deepspeed.ops.__compatible_ops__.get(builder.NAME, False):
        load_alone(builder.name, builder.load)


def load_alone(name: str, load: Callable[[], object]) -> None:
    """Call a function that loads an extension while no other process of this machine does, without its stale lock."""
    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
    root.mkdir(parents=True, exist_ok=True)
    with (root / "speed_ray.flock").open("a") as alone:
        fcntl.flock(alone, fcntl.LOCK_EX)
        for stale in (root / name / "lock", *root.glob(f"*/{name}/lock")):
            stale.unlink(missing_ok=True)
        load()
