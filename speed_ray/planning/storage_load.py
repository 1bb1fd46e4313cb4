"""Tell what a stage's shards take of the store and of the driver, by figures of the fleet benchmark."""

from dataclasses import dataclass

from speed_ray.executor.reply_journal import EVERY
from speed_ray.storage.shard_plan import Plan

# benchmarks/RESULTS.md, fleet, 21 November 2026
GETS, PUTS = 8.0, 3.0  # requests a shard
PAID_PUTS = 3.0  # more where calls cost money: a lease, and changes of the balance
BASE_BYTES, SHARD_BYTES = 295e6, 15.6e3  # of the driver's memory


@dataclass(frozen=True)
class StorageLoad:
    """Holds what is asked of the store and the driver."""

    shards: int
    requests: int
    bytes: int
    driver_bytes: int


def storage_load(rows: float, shard_rows: int, row_bytes: float, paid_calls: float) -> StorageLoad:
    """Return the load of a stage of so many rows; `paid_calls` are journalled."""
    shards = Plan("", round(rows), shard_rows).shards
    requests = shards * (GETS + PUTS) + (shards * PAID_PUTS + paid_calls / EVERY if paid_calls else 0.0)
    return StorageLoad(shards, round(requests), round(rows * row_bytes), round(BASE_BYTES + shards * SHARD_BYTES))
