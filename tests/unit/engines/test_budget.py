"""A budget over any number of processes: what is billed is charged, and what is charged is within the budget."""

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from obstore.store import MemoryStore

from speed_ray.engines.base import BudgetExhausted
from speed_ray.engines.budget import Ledger
from speed_ray.recipes.engine_settings import Budget, Price
from speed_ray.storage.holder import Holder
from speed_ray.storage.spending import Spending, Usage
from speed_ray.storage.store import LocalFolder, ObjectStore
from tests.helpers.crashing_drivers import AFTER, BEFORE, LOST, Crash, Troubled, Turn, interleave
from tests.helpers.ledgers import ledger_of

MOST = Usage(1, 40, 100)  # the bound of every call here
PRICE = Price(input=1.0, output=2.0)
BUDGETS = st.one_of(
    st.builds(Budget, calls=st.integers(1, 40)),
    st.builds(Budget, tokens=st.integers(1, 4_000)),
    st.builds(Budget, dollars=st.floats(0.0001, 0.005)),
)
TROUBLES = st.dictionaries(st.integers(0, 12), st.sampled_from([BEFORE, AFTER, LOST]), max_size=2)


def charged(store: Any) -> Usage:
    return Spending(store, "teacher").balance().charged


def within(budget: Budget, usage: Usage) -> bool:
    tokens = usage.prompt_tokens + usage.output_tokens
    return (
        (budget.calls is None or usage.calls <= budget.calls)
        and (budget.tokens is None or tokens <= budget.tokens)
        and (budget.dollars is None or usage.dollars(PRICE) <= budget.dollars)
    )


async def call_often(ledger: Ledger, calls: int, billed: list[Usage]) -> list[BaseException | None]:
    """Make calls, four at once; every third answer is lost, and nobody knows what it cost."""
    room = asyncio.Semaphore(4)

    async def call(number: int) -> None:
        async with room:
            await ledger.reserve(MOST)
            actual = Usage(1, 40 - number % 30, 1 + number % 100)
            billed.append(actual)
            await asyncio.sleep(0)
            ledger.settle(MOST, MOST if number % 3 == 0 else actual)

    ends = await asyncio.gather(*map(call, range(calls)), return_exceptions=True)
    if crash := next((end for end in ends if isinstance(end, Crash)), None):
        raise crash
    await ledger.give_back()
    return ends


def budgeted(store: Any, budget: Budget) -> Ledger:
    return ledger_of(store, budget, PRICE if budget.dollars else None)


def check(backend: MemoryStore, budget: Budget, billed: list[Usage]) -> None:
    now = charged(ObjectStore(backend, "memory://"))
    assert within(budget, now)
    assert now.covers(sum(billed, Usage()))


@pytest.mark.parametrize("trouble", [BEFORE, AFTER, LOST])
@pytest.mark.parametrize("budget", [Budget(calls=20), Budget(tokens=2_000)])
def test_every_crash_point_of_one_process_and_of_the_next(trouble, budget):
    for point in itertools.count():
        backend, billed = MemoryStore(), []
        first = Troubled(backend, {point: trouble})
        with contextlib.suppress(Crash):
            asyncio.run(call_often(budgeted(first, budget), 60, billed))
        check(backend, budget, billed)
        asyncio.run(call_often(budgeted(ObjectStore(backend, "memory://"), budget), 60, billed))
        check(backend, budget, billed)
        if first.operations <= point:
            break
    assert point > 5


@given(BUDGETS, st.lists(TROUBLES, min_size=2, max_size=3), st.lists(st.integers(0, 2), min_size=1, max_size=40))
def test_processes_side_by_side_and_killed(budget, troubles, choices):
    backend, billed = MemoryStore(), []

    def job(own: dict[int, str]) -> Callable[[Turn], None]:
        def run(turn: Turn) -> None:
            asyncio.run(call_often(budgeted(Troubled(backend, own, turn), budget), 30, billed))

        return run

    interleave([job(own) for own in troubles], choices)
    check(backend, budget, billed)


async def test_live_processes_use_a_budget_up_to_the_last_call(tmp_path):
    store, billed = LocalFolder(tmp_path), []
    holders = [Holder(store) for _ in range(3)]
    ledgers = [Ledger(Budget(calls=100), None, Spending(store, "teacher"), holder, "teacher") for holder in holders]
    ends = await asyncio.gather(*(call_often(ledger, 60, billed) for ledger in ledgers))
    assert len(billed) == 100 == charged(store).calls
    refused = [end for end in itertools.chain(*ends) if end]
    assert len(refused) == 80 and all(isinstance(end, BudgetExhausted) for end in refused)
    assert Spending(store, "teacher").balance().reserved == {}
    for holder in holders:
        holder.close()


async def test_a_killed_process_leaves_little_charged_that_it_never_called(tmp_path):
    store = LocalFolder(tmp_path)
    killed = ledger_of(store, Budget(calls=1_000))
    for _ in range(10):
        await killed.reserve(MOST)
        killed.settle(MOST, Usage(1, 10, 10))
    assert 10 <= charged(store).calls <= 10 + 1_000 // 8
    with pytest.raises(BudgetExhausted, match="reserved by workers that were killed"):
        after = ledger_of(store, Budget(calls=20))
        for _ in range(20):
            await after.reserve(MOST)
            after.settle(MOST, MOST)


async def test_what_a_run_of_an_earlier_version_spent_counts(tmp_path):
    store = LocalFolder(tmp_path)
    ledger = ledger_of(store, Budget(calls=10))
    ledger.spending = Spending(store, "teacher", before=lambda: Usage(8, 80, 80))
    billed: list[Usage] = []
    await call_often(ledger, 5, billed)
    assert len(billed) == 2 and charged(store).calls == 10
