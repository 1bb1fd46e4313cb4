"""Keep what a role's calls ("teacher") were charged in a run, exactly, whoever calls and whatever is killed.

    spending/<role>/<version>.json   the whole balance; a version is created only if absent, from the one before it

A call is covered by a reservation that is stored before it is sent. What a killed process had reserved stays charged:
nobody can know which of its calls were answered.
"""

import json
import operator
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace

from speed_ray.errors import Interrupted
from speed_ray.recipes.engine_settings import Price
from speed_ray.storage.store import Store, read_if_exists


@dataclass(frozen=True, slots=True)
class Usage:
    """Counts calls and their tokens, as an endpoint reported them or as an upper bound."""

    calls: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return self._each(operator.add, other)

    def __sub__(self, other: "Usage") -> "Usage":
        return self._each(operator.sub, other)

    def times(self, number: int) -> "Usage":
        """Return the usage of so many such calls."""
        return self._each(operator.mul, Usage(number, number, number))

    def at_least_zero(self) -> "Usage":
        """Return this usage with negative counts as zero."""
        return self._each(max, Usage())

    def _each(self, function: Callable[[int, int], int], other: "Usage") -> "Usage":
        return Usage(
            function(self.calls, other.calls),
            function(self.prompt_tokens, other.prompt_tokens),
            function(self.output_tokens, other.output_tokens),
        )

    def covers(self, other: "Usage") -> bool:
        """Tell whether no count of another usage is larger."""
        return (other - self).at_least_zero() == Usage()

    def dollars(self, price: Price | None) -> float:
        """Return the cost in dollars, 0.0 where the recipe names no price."""
        if price is None:
            return 0.0
        return (self.prompt_tokens * price.input + self.output_tokens * price.output) / 1e6


@dataclass(frozen=True)
class Balance:
    """Holds what was `spent`, and what each holder has `reserved` and not settled.

    `rejects` holds by a plan's digest how much its latest rows were rejected (executor/early_stop.py).
    """

    version: int
    spent: Usage
    reserved: dict[str, Usage] = field(default_factory=dict)
    rejects: dict[str, int] = field(default_factory=dict)

    @property
    def charged(self) -> Usage:
        """Return all that counts against a budget."""
        return sum(self.reserved.values(), self.spent)

    def after(self, holder: str, spent: Usage, reserved: Usage) -> "Balance":
        """Return the next balance, with more spent and another reservation of one holder."""
        others = {name: usage for name, usage in self.reserved.items() if name != holder}
        mine = {holder: reserved} if reserved != Usage() else {}
        return replace(self, version=self.version + 1, spent=self.spent + spent, reserved=others | mine)


class Spending:
    """Reads and changes the balance of one role of a run. Safe for any number of processes at once."""

    def __init__(self, store: Store, role: str, before: Callable[[], Usage] = Usage) -> None:
        """Open it. `before` adds up what a run of a version without balances has spent."""
        self.store = store
        self.folder = f"spending/{role}"
        self._before = before
        self._last: Balance | None = None

    def balance(self) -> Balance:
        """Read the newest balance; where there is none yet, what `before` adds up."""
        last = self._last or self._newest()
        while found := self._read(last.version + 1):
            last = found
        self._last = last
        return last

    def change(self, changed: Callable[[Balance], Balance]) -> Balance:
        """Store the balance that follows from the newest, however many others do the same, and return it."""
        while True:
            new = changed(self.balance())
            tree = {"id": uuid.uuid4().hex, **asdict(new)}
            if self.store.create(f"{self.folder}/{new.version:08d}.json", json.dumps(tree).encode()):
                self._last = new
                return new

    def _newest(self) -> Balance:
        versions = [int(name.removesuffix(".json")) for name in self.store.names(self.folder)]
        newest = self._read(max(versions)) if versions else None
        return newest or Balance(-1, self._before())

    def _read(self, version: int) -> Balance | None:
        path = f"{self.folder}/{version:08d}.json"
        data = read_if_exists(self.store, path)
        if data is None:
            return None
        try:
            tree = json.loads(data)
            reserved = {holder: Usage(**usage) for holder, usage in tree["reserved"].items()}
            return Balance(version, Usage(**tree["spent"]), reserved, tree.get("rejects", {}))
        except (ValueError, KeyError, TypeError) as error:
            raise Interrupted(
                f"{self.store.uri}/{path} is damaged ({error}), so nobody knows what was spent.\n"
                "Restore it from a backup, or delete it: the balance before it then counts, without what came after."
            ) from None
