"""Tell the other processes of a run that one which does paid work is alive.

    holders/<id>.json   its process and a number that grows every few seconds; nobody else writes it

A holder that others may take for dead makes no new call, so no row is paid for by two at once.
"""

import functools
import json
import os
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import psutil

from speed_ray.errors import Interrupted
from speed_ray.storage.store import Store, read_if_exists

HEARTBEAT_SECONDS = 5.0
FENCED_SECONDS = 30.0  # without a stored heartbeat: no new calls
DEAD_SECONDS = 60.0  # without a new heartbeat, on the clock of the process that watches: others take the work over


class Holder:
    """Holds leases and reservations for this process, and stores its heartbeat until it is closed."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.id = uuid.uuid4().hex
        self._path = f"holders/{self.id}.json"
        self._beats = 0
        self._beat_at = time.monotonic()
        self._closed = threading.Event()
        self._beat()
        threading.Thread(target=self._beat_until_closed, daemon=True, name="heartbeat").start()

    def is_fenced(self) -> bool:
        """Tell whether the last heartbeat is so old that others may soon take this process for dead.

        Raises Interrupted where they may have done so already, and work that it had taken may be another's now.
        """
        silent = time.monotonic() - self._beat_at
        if silent > DEAD_SECONDS:
            raise Interrupted(
                f"{self.store.uri} could not be written to for {silent:.0f} seconds, and others may have taken over "
                "the work.\nRun the same command again: everything answered is kept."
            )
        return silent > FENCED_SECONDS

    def close(self) -> None:
        """Stop the heartbeat: whatever this process still holds is free."""
        self._closed.set()
        self.store.delete(self._path)

    def _beat(self) -> None:
        began = time.monotonic()
        self.store.put(self._path, json.dumps({**_this_process(), "beats": self._beats}).encode())
        if began - self._beat_at < DEAD_SECONDS:  # else others may have taken the work over
            self._beats, self._beat_at = self._beats + 1, began

    def _beat_until_closed(self) -> None:
        while not self._closed.wait(HEARTBEAT_SECONDS):
            try:
                self._beat()
            except Interrupted:
                continue  # the store may answer next time; until then this holder is fenced


class HolderWatch:
    """Tells which holders are alive, from their heartbeats; one in reach of this process by its process as well."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._seen: dict[str, tuple[int, float]] = {}  # heartbeats, and when they were first seen

    def is_alive(self, holder: str) -> bool:
        """Tell whether a holder may still make calls. One that vanished from another machine counts for a minute."""
        data = read_if_exists(self.store, f"holders/{holder}.json")
        if data is None:
            return False
        record = json.loads(data)
        if record["space"] == _this_process()["space"] and not _runs(record["pid"], record["started"]):
            return False
        beats, since = self._seen.get(holder, (-1, 0.0))
        if record["beats"] != beats:
            self._seen[holder] = (record["beats"], time.monotonic())
            return True
        return time.monotonic() - since < DEAD_SECONDS


@functools.cache
def _this_process() -> dict[str, Any]:
    process = psutil.Process()
    return {"space": _process_space(), "pid": process.pid, "started": process.create_time()}


def _process_space() -> str:
    """Name what process ids are unique in: a boot of a machine, and on Linux a container's process namespace."""
    namespace = Path("/proc/self/ns/pid")
    inside = os.readlink(namespace) if namespace.exists() else ""
    return f"{os.uname().nodename}-{psutil.boot_time():.0f}-{inside}"


def _runs(pid: int, started: float) -> bool:
    try:
        process = psutil.Process(pid)
        return process.create_time() == started and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
