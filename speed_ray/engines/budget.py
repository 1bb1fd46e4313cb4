"""Enforce a hard budget on an endpoint: usage is reserved in the run's storage before a call is sent.

A call's reservation is an upper bound (no tokenizer makes more tokens than a text has bytes, no answer is longer than
`max_tokens`). Storage is asked for a slice of several calls at once, so the sum of spent and reserved never passes the
budget, however many processes call and whichever of them is killed. Near its end the budget lets fewer calls through
at once, because the real counts are known only when the answers come back.
"""

import asyncio
import logging
import time

from speed_ray.engines.base import BudgetExhausted
from speed_ray.errors import Interrupted
from speed_ray.recipes.engine_settings import Budget, Price
from speed_ray.storage.holder import Holder, HolderWatch
from speed_ray.storage.spending import Balance, Spending, Usage

log = logging.getLogger(__name__)

FIRST_SLICE, LARGEST_SLICE = 16, 4_096  # calls
SLICE_SECONDS = 1.0  # a slice that lasted less is doubled: a store takes some 30 ms to reserve one
SLICES_IN_REST = 8  # a slice takes at most this part of what the budget has left: a killed process leaves it charged
POLL_SECONDS = 1.0  # between two looks at what other processes gave back


class Ledger:
    """Reserves and settles one engine's calls in this process against the budget of its role in the run."""

    def __init__(self, budget: Budget, price: Price | None, spending: Spending, holder: Holder, key: str) -> None:
        """Open a ledger. `key` is the engine's key in the recipe ("teacher")."""
        self.holder = holder
        self.spending = spending
        self.spent = Usage()  # by this process
        self._budget = budget
        self._price = price
        self._watch = HolderWatch(spending.store)
        self._key = key
        self._granted = Usage()  # what storage has reserved for this process
        self._in_flight = Usage()
        self._unsettled = Usage()  # spent, and not settled in storage yet
        self._slice = FIRST_SLICE
        self._refilled = 0.0  # when, on the monotonic clock
        self._lock = asyncio.Lock()  # held by whoever changes what is granted
        self._giving_back = False
        self._exhausted = ""  # the message, once no call fits
        self._near_end = False  # the budget had no slice left: each call asks storage by itself
        self._refilling: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    @property
    def counts_tokens(self) -> bool:
        """Tell if this budget limits tokens or dollars, and so needs token counts."""
        return self._budget.tokens is not None or self._budget.dollars is not None

    async def reserve(self, most: Usage) -> None:
        """Reserve one call, waiting for others to settle. Raises BudgetExhausted when none can be had."""
        while self.holder.is_fenced():
            await asyncio.sleep(POLL_SECONDS)
        if not self._giving_back and self._free.covers(most):
            self._in_flight += most
        else:
            async with self._lock:
                await self._ensure_free(most)
                self._in_flight += most
        if self._free.calls < self._slice // 2 and not self._near_end and self._refilling is None:
            self._refilling = asyncio.create_task(self._refill_early(most))

    def settle(self, most: Usage, actual: Usage) -> None:
        """Replace a reservation by the call's actual usage (`Usage()` for one that was certainly not billed)."""
        self._in_flight -= most
        self._unsettled += actual
        self.spent += actual
        self._changed.set()

    async def give_back(self) -> None:
        """Settle in storage, and give back what is reserved there for no call, unless calls are in flight."""
        async with self._lock:
            if not self._in_flight.calls:
                await self._return_free()

    @property
    def _free(self) -> Usage:
        return self._granted - self._in_flight - self._unsettled

    async def _ensure_free(self, most: Usage) -> None:
        while not self._free.covers(most):
            if self._exhausted:  # the job ends: those who waited need not ask storage again, one by one
                raise BudgetExhausted(self._exhausted)
            self._changed.clear()
            if await self._refill(most):
                continue
            if self._in_flight.calls:
                await self._changed.wait()
                continue
            await self._return_free()
            balance = await asyncio.to_thread(self.spending.balance)
            if await asyncio.to_thread(self._others_call, balance):
                await asyncio.sleep(POLL_SECONDS)
            elif short := self._short_of(balance.charged, balance.charged + most):
                self._exhausted = self._explain(short, balance)
                raise BudgetExhausted(self._exhausted)

    async def _refill_early(self, most: Usage) -> None:
        """Reserve the next slice while this one lasts, so that calls seldom wait for storage."""
        try:
            async with self._lock:
                self._near_end = not await self._refill(most)
        except Interrupted as error:
            log.warning("%s: its budget could not be reserved early: %s", self._key, error)
        finally:
            self._refilling = None

    async def _refill(self, most: Usage) -> bool:
        """Settle in storage and reserve a slice of such calls there. Returns False where not even one more fits."""
        now = time.monotonic()
        if now - self._refilled < SLICE_SECONDS:
            self._slice = min(2 * self._slice, LARGEST_SLICE)
        self._refilled = now
        settled, more = self._unsettled, Usage()

        def changed(balance: Balance) -> Balance:
            nonlocal more
            held = (self._granted - settled).at_least_zero()
            now_charged = balance.after(self.holder.id, settled, held)
            more = self._affordable(now_charged.charged, most)
            return balance.after(self.holder.id, settled, held + more)

        await asyncio.to_thread(self.spending.change, changed)
        self._granted += more - settled
        self._unsettled -= settled
        return more != Usage()

    async def _return_free(self) -> None:
        """Settle in storage and reserve nothing more there. No call is in flight, and none begins meanwhile."""
        if self._granted == self._unsettled == Usage():
            return
        self._giving_back = True
        try:
            settled = self._unsettled
            await asyncio.to_thread(
                self.spending.change, lambda balance: balance.after(self.holder.id, settled, Usage())
            )
            self._granted, self._unsettled = Usage(), self._unsettled - settled
        finally:
            self._giving_back = False

    def _affordable(self, charged: Usage, most: Usage) -> Usage:
        """Return what to reserve on top of `charged` for as many such calls as a slice may have; zero for none."""
        calls = self._slice
        while calls:
            more = (most.times(calls) - self._free).at_least_zero()
            parts = SLICES_IN_REST if calls > 1 else 1
            if not self._short_of(charged, charged + more.times(parts)):
                return more
            calls //= 2
        return Usage()

    def _others_call(self, balance: Balance) -> bool:
        return any(self._watch.is_alive(holder) for holder in balance.reserved if holder != self.holder.id)

    def _explain(self, short: str, balance: Balance) -> str:
        killed = sum(balance.reserved.values(), Usage()).calls
        lost = f" {killed} of them were reserved by workers that were killed.\n" if killed else ""
        return (
            f"budget used up: {self._key}.budget.{short}, and another call may not fit.\n{lost}"
            f"Everything answered so far is kept. Raise {self._key}.budget.{short.split()[0]} "
            f"and run the same command again."
        )

    def _short_of(self, charged: Usage, total: Usage) -> str | None:
        """Name the first limit that a total would pass, with what is charged so far: "calls (90 of 90 used)"."""
        budget = self._budget
        if budget.calls is not None and total.calls > budget.calls:
            return f"calls ({charged.calls} of {budget.calls} used)"
        tokens = charged.prompt_tokens + charged.output_tokens
        if budget.tokens is not None and total.prompt_tokens + total.output_tokens > budget.tokens:
            return f"tokens ({tokens} of {budget.tokens} used)"
        if budget.dollars is not None and total.dollars(self._price) > budget.dollars:
            return f"dollars ({charged.dollars(self._price):.4f} of {budget.dollars} used)"
        return None
