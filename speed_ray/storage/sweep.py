"""Delete what does not count: attempts that lost, and files of writes that were never finished."""

import os
import re
import time
from pathlib import Path

from speed_ray.storage.shards import Artifact
from speed_ray.storage.store import LocalFolder, Store

GRACE = 3600.0  # seconds: a driver that was forgotten may still be writing
UNFINISHED = re.compile(r"\..+-[0-9a-f]{32}")  # see LocalFolder


def sweep_artifact(artifact: Artifact, grace: float = GRACE) -> int:
    """Delete orphaned attempts and leases once the artifact was published `grace` seconds ago; count the files."""
    published, manifest = artifact.published_at(), artifact.manifest()
    if published is None or manifest is None or time.time() - published < grace:
        return 0
    kept = {entry["path"] for shard in manifest["shards"] for entry in shard["files"].values()}
    orphans = [path for name in artifact.names("attempts") if (path := f"attempts/{name}") not in kept]
    orphans += [f"leases/{name}" for name in artifact.names("leases")]
    for path in orphans:
        artifact.store.delete(f"{artifact.name}/{path}")
    return len(orphans)


def sweep_unfinished_writes(store: Store, grace: float = GRACE) -> int:
    """Delete the hidden files that killed writes left in a local run, once they are `grace` seconds old; count them.

    Buckets have none: there an object is whole or not there.
    """
    if not isinstance(store, LocalFolder):
        return 0
    hidden = [Path(where, name) for where, _, names in os.walk(store.root) for name in names]
    old = [path for path in hidden if UNFINISHED.fullmatch(path.name) and _age(path) >= grace]
    for path in old:
        path.unlink(missing_ok=True)
    return len(old)


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:  # its write was finished meanwhile
        return 0.0
