"""Make a folder of this machine's cache once, however many processes want it."""

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout


def ensure_cached_folder(folder: Path, make: Callable[[Path], None], doing: str) -> Path:
    """Return a folder of the cache, made by `make` where this machine does not have it yet.

    `make` fills an empty folder, which gets its name when it is whole. Two processes at once make one: the second
    waits for the first. `doing` says in messages what takes its time, as "converting a.gguf".
    """
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(FileLock(f"{folder}.lock"), doing):
        if not folder.is_dir():
            say(f"{doing}, once on this machine")
            _make_whole(folder, make)
    return folder


def _make_whole(folder: Path, make: Callable[[Path], None]) -> None:
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
    unfinished.mkdir()
    try:
        make(unfinished)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def _alone(lock: BaseFileLock, doing: str) -> Iterator[None]:
    try:
        lock.acquire(blocking=False)
    except Timeout:
        say(f"waiting for another process, which is {doing}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def say(text: str) -> None:
    """Tell who waits for a folder what is done."""
    print(f"speed-ray: {text}", file=sys.stderr, flush=True)
