"""Lease the shards of an artifact, so that two drivers of one run never pay for the same rows.

leases/<shard>.<generation>.<n>.json   names the holder; n grows as dead holders' shards are taken over
leases/<shard>.<generation>.<n>.free   gives a shard back that was not committed
"""

import json
import uuid

from speed_ray.storage.holder import Holder, HolderWatch
from speed_ray.storage.shards import Artifact


class ShardLeases:
    """Takes and gives back the shards of one artifact for one holder."""

    def __init__(self, artifact: Artifact, holder: Holder) -> None:
        self.artifact = artifact
        self.holder = holder
        self._watch = HolderWatch(holder.store)
        self._held: dict[tuple[int, int], str] = {}

    def take(self, shard: int, generation: int) -> bool:
        """Take a shard unless a live holder, this one included, has it."""
        if (shard, generation) in self._held:
            return False
        number, last = 0, None
        while self.artifact.has(path := f"leases/{shard:08d}.{generation}.{number}.json"):
            number, last = number + 1, path
        if last and not self.artifact.has(last.replace(".json", ".free")):
            holder = json.loads(self.artifact.get(last))["holder"]
            if holder == self.holder.id or self._watch.is_alive(holder):
                return False
        lease = json.dumps({"holder": self.holder.id, "lease": uuid.uuid4().hex}).encode()
        if not self.artifact.create(path, lease):
            return False
        self._held[shard, generation] = path
        return True

    def give_back(self, shard: int, generation: int) -> None:
        """Free a shard that this holder has taken, so that another one need not wait for this process to end."""
        path = self._held.pop((shard, generation))
        self.artifact.create(path.replace(".json", ".free"), uuid.uuid4().bytes)
