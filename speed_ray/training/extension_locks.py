"""Remove locks that killed compilations of DeepSpeed's extensions left: PyTorch waits for each of them for ever."""

import contextlib
import fcntl
import os
from pathlib import Path
from typing import IO

from torch.utils.cpp_extension import get_default_build_root

_held: list[IO[str]] = []  # for the life of this process


def release_stale_locks() -> None:
    """Delete every lock in PyTorch's folder of extensions, unless another of our trainings may be compiling there.

    PyTorch's lock is a file that its owner deletes; of an owner that was killed it stays. Each training shares a
    `flock`, which ends with its process; who can have it alone knows that nobody compiles.
    """
    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
    with contextlib.suppress(OSError):  # where nobody may write, DeepSpeed says so itself
        if not _held:
            root.mkdir(parents=True, exist_ok=True)
            _held.append((root / "speed_ray.flock").open("a"))
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(_held[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
            for lock in (*root.glob("*/lock"), *root.glob("*/*/lock")):
                lock.unlink(missing_ok=True)
        fcntl.flock(_held[0], fcntl.LOCK_SH)
