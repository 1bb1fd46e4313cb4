"""Look at this machine's memory, shared memory, limits of open files, and disks."""

import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from speed_ray.doctor.finding import Finding, gigabytes
from speed_ray.storage.store import LocalFolder, Store, cache_folder

OBJECT_STORE = 0.3  # of memory: what Ray takes of shared memory for its objects
OPEN_FILES = 65_536  # what Ray asks for on a head; a driver on one machine does with far fewer
FEW_OPEN_FILES = 4_096
FULL = 0.95  # from which on Ray writes no object to a disk any more
LITTLE_DISK = 20 * 2**30
CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def memory_limit() -> int:
    """Return the bytes of memory that this process may use: the machine's, or its container's where that is less."""
    total: int = psutil.virtual_memory().total
    for path in map(Path, CGROUP_LIMITS):
        if path.is_file() and (limit := path.read_text().strip()).isdecimal():
            total = min(total, int(limit))
    return total


def check_shared_memory(folder: str = "/dev/shm") -> Finding:
    """Find whether Ray's objects fit into shared memory; else it keeps them on disk."""
    wanted = OBJECT_STORE * memory_limit()
    try:
        there = shutil.disk_usage(folder)
    except OSError as error:
        return Finding("shared memory", "warn", f"{folder}: {error.strerror}", "Ray keeps its objects on disk.")
    if there.total >= wanted:
        return Finding("shared memory", "ok", f"{gigabytes(there.total)} in {folder}")
    return Finding(
        "shared memory",
        "warn",
        f"{gigabytes(there.total)} in {folder}, and Ray would take {gigabytes(wanted)}: it keeps its objects on disk",
        f"Start a container with `--shm-size={wanted / 2**30:.0f}g`, a Pod with an emptyDir of medium Memory there.",
    )


def check_open_files() -> Finding:
    """Find whether Ray may open the files and sockets that it needs; it lifts the soft limit to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    hard = OPEN_FILES if hard == resource.RLIM_INFINITY else hard
    found = f"ulimit -n is {soft:,}, at most {hard:,}"
    if hard >= OPEN_FILES:
        return Finding("open files", "ok", found)
    advice = f"Lift it to {OPEN_FILES:,} (/etc/security/limits.conf, or `docker run --ulimit nofile={OPEN_FILES}`)"
    if hard >= FEW_OPEN_FILES:
        return Finding("open files", "ok", f"{found}: enough for one machine, little for the head of a large cluster")
    return Finding("open files", "fail", found, f"{advice}: Ray opens thousands of sockets.")


def check_disks(store: Store | None) -> Iterator[Finding]:
    """Find whether there is room for the run, for models, and for what Ray writes out, each disk once."""
    folders = {"cache": cache_folder(), "hub cache": _hub_cache(), "temporary files": Path(tempfile.gettempdir())}
    if isinstance(store, LocalFolder):
        folders = {"run": store.root, **folders}
    disks: dict[int, list[str]] = {}
    for name, folder in folders.items():
        disks.setdefault(existing(folder).stat().st_dev, []).append(name)
    for names in disks.values():
        yield _check_disk(" and ".join(names), existing(folders[names[0]]))


def existing(folder: Path) -> Path:
    """Return a folder, or the nearest one above it that is there."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())


def _check_disk(used_for: str, folder: Path) -> Finding:
    there = shutil.disk_usage(folder)
    found = f"{gigabytes(there.free)} free of {gigabytes(there.total)} at {folder} ({used_for})"
    if there.free < (1 - FULL) * there.total:
        return Finding("disk", "fail", found, "Make room: Ray writes nothing to a disk that is 95% full.")
    if there.free < LITTLE_DISK:
        return Finding("disk", "warn", found, "A model of eight billion parameters alone takes 16 GB.")
    return Finding("disk", "ok", found)


def _hub_cache() -> Path:
    return Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
