"""Ledgers for tests that drive paid work in their own process."""

import uuid
from dataclasses import dataclass, field
from typing import Any, cast

from speed_ray.engines.budget import Ledger
from speed_ray.recipes.engine_settings import Budget, Price
from speed_ray.storage.holder import Holder
from speed_ray.storage.spending import Spending
from speed_ray.storage.store import Store


@dataclass
class KilledHolder:
    """A holder without a heartbeat: the others take it for dead, so a test needs no second process to go on."""

    store: Any
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def is_fenced(self) -> bool:
        """It calls whenever it likes."""
        return False


def ledger_of(store: Store, budget: Budget | None = None, price: Price | None = None, key: str = "teacher") -> Ledger:
    """Open a ledger whose holder counts as dead for everybody else."""
    holder = cast(Holder, KilledHolder(store))
    return Ledger(budget or Budget(), price, Spending(store, key), holder, key)
