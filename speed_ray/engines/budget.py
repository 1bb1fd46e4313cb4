"""Enforce a hard budget on an endpoint: usage is reserved before a call is sent and settled when it is answered.

A reservation is an upper bound (no tokenizer makes more tokens than a text has bytes, no answer is longer than
`max_tokens`), so the sum of spent and reserved never passes the budget, however many calls are in flight. Near
its end the budget lets fewer calls through at once, because the real counts are known only when they come back.
"""

import asyncio
from dataclasses import dataclass

from speed_ray.engines.base import BudgetExhausted
from speed_ray.recipes.engine_settings import Budget, Price


@dataclass(frozen=True, slots=True)
class Usage:
    """Counts answered calls, and their tokens as the endpoint reported them."""

    calls: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.output_tokens + other.output_tokens,
        )

    def __sub__(self, other: "Usage") -> "Usage":
        return Usage(
            self.calls - other.calls,
            self.prompt_tokens - other.prompt_tokens,
            self.output_tokens - other.output_tokens,
        )

    def dollars(self, price: Price | None) -> float:
        """Return the cost in dollars, 0.0 where the recipe names no price."""
        if price is None:
            return 0.0
        return (self.prompt_tokens * price.input + self.output_tokens * price.output) / 1e6


class Ledger:
    """Tracks what was `spent` so far, and what calls in flight have `reserved`."""

    def __init__(self, budget: Budget, price: Price | None, spent: Usage, key: str) -> None:
        """Open with the usage of earlier runs. `key` is the engine's key in the recipe ("teacher")."""
        self.spent = spent
        self.reserved = Usage()
        self._budget = budget
        self._price = price
        self._key = key
        self._waiting: list[asyncio.Future[None]] = []

    async def reserve(self, most: Usage) -> None:
        """Reserve one call, waiting for calls in flight to settle. Raises BudgetExhausted when none can be had."""
        while short := self._short_of(self.spent + self.reserved + most):
            if not self.reserved.calls:
                raise BudgetExhausted(
                    f"budget used up: {self._key}.budget.{short}, and another call may not fit.\n"
                    f"Everything answered so far is kept. Raise {self._key}.budget.{short.split()[0]} "
                    f"and run the same command again."
                )
            change = asyncio.get_running_loop().create_future()
            self._waiting.append(change)
            await change
        self.reserved += most

    def settle(self, most: Usage, actual: Usage) -> None:
        """Replace a reservation by the call's actual usage (`Usage()` for one that was never answered)."""
        self.reserved -= most
        self.spent += actual
        waiting, self._waiting = self._waiting, []
        for change in waiting:
            if not change.done():
                change.set_result(None)

    @property
    def counts_tokens(self) -> bool:
        """Tell if this budget limits tokens or dollars, and so needs token counts."""
        return self._budget.tokens is not None or self._budget.dollars is not None

    def _short_of(self, total: Usage) -> str | None:
        """Name the first limit that a total would pass, with the usage so far: "calls (90 of 90 used)"."""
        budget, spent = self._budget, self.spent
        if budget.calls is not None and total.calls > budget.calls:
            return f"calls ({spent.calls} of {budget.calls} used)"
        tokens = spent.prompt_tokens + spent.output_tokens
        if budget.tokens is not None and total.prompt_tokens + total.output_tokens > budget.tokens:
            return f"tokens ({tokens} of {budget.tokens} used)"
        if budget.dollars is not None and total.dollars(self._price) > budget.dollars:
            return f"dollars ({spent.dollars(self._price):.4f} of {budget.dollars} used)"
        return None
