"""The rule by which a paid stage ends early: soon where it gets nowhere, hardly ever at 5% of accepted rows."""

import asyncio
import random
from collections.abc import Callable, Iterable

import pytest
from obstore.store import MemoryStore

from speed_ray import recipes
from speed_ray.executor.early_stop import ACCEPTED, BATCH_ROWS, FIRST_ROWS, LIMIT, EarlyStop
from speed_ray.records import RejectRow
from speed_ray.stages.brainstorm import Brainstorm
from speed_ray.storage.run import PROPOSED_TASKS
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import Artifact
from speed_ray.storage.spending import Spending
from speed_ray.storage.store import ObjectStore

ROWS = 1_000_000
STAGE = Brainstorm(recipes.load_recipe("miniature", []))
REJECT: RejectRow = {
    "row_id": "r", "parent_id": "p", "stage": "s", "kind": "sts", "reason": "malformed", "detail": "d", "text": "t"
}  # fmt: skip


def spending() -> Spending:
    return Spending(ObjectStore(MemoryStore(), "memory://"), "teacher")


@pytest.fixture
def begin() -> Callable[..., EarlyStop]:
    """Begin a worker's count of a plan's rows; all workers of a test share the storage."""
    storage = spending().store

    def make(rows: int = ROWS) -> EarlyStop:
        plan = Plan(PROPOSED_TASKS, rows=rows, shard_rows=256)
        return EarlyStop(STAGE, Artifact(storage, PROPOSED_TASKS), plan, Spending(storage, "teacher"))

    return make


def ended_after(worker: EarlyStop, accepted: Iterable[bool]) -> int | None:
    """Count rows until the stage is ended; return how many there were, None where it is not."""

    async def count() -> int | None:
        for number, good in enumerate(accepted, start=1):
            await worker.count(None if good else REJECT)
            if worker.error:
                return number
        return None

    return asyncio.run(count())


@pytest.mark.parametrize(("share", "rows"), [(0.05, 4_000), (0.3, 2_000)])
def test_a_stage_of_a_few_accepted_rows_goes_on(share, rows):
    draws = random.Random(7)
    for _ in range(20):
        plan = Plan(PROPOSED_TASKS, rows=ROWS, shard_rows=256)
        balance = spending()
        worker = EarlyStop(STAGE, Artifact(balance.store, PROPOSED_TASKS), plan, balance)
        assert ended_after(worker, (draws.random() < share for _ in range(rows))) is None


def test_the_chance_of_an_end_at_a_share_of_5_percent_is_as_documented():
    """Wald's martingale: exp(a * sum) keeps its mean where a solves .95 e^a + .05 e^(-50 a) = 1."""
    a = 0.0463
    assert 0.95 * 2.71828**a + 0.05 * 2.71828 ** (-ACCEPTED * a) == pytest.approx(1, abs=1e-3)
    assert 2.71828 ** (-a * LIMIT) < 1e-8
    assert 0.95**FIRST_ROWS < 1 / 700


def test_a_stage_that_never_worked_is_ended_by_its_first_rows(begin):
    assert ended_after(begin(), [False] * 1_000) == FIRST_ROWS


def test_all_rows_of_a_small_plan_rejected_end_it(begin):
    assert ended_after(begin(rows=20), [False] * 20) == 20


@pytest.mark.parametrize("still_good", [0, 200])
def test_a_stage_that_stops_working_is_ended(begin, still_good):
    """Also where one row of 200 is accepted still."""
    worker = begin()
    assert ended_after(worker, (number % 2 == 0 for number in range(1_000))) is None
    broken = ended_after(worker, (bool(still_good) and number % still_good == 0 for number in range(10_000)))
    assert LIMIT <= broken <= (2 * LIMIT if still_good else LIMIT + BATCH_ROWS)


def test_workers_count_together(begin):
    workers = [begin() for _ in range(4)]
    asked = 0
    while not all(worker.error for worker in workers):
        asked += sum(worker.error is None for worker in workers)
        for worker in workers:
            if not worker.error:
                ended_after(worker, [False])
    assert FIRST_ROWS <= asked <= FIRST_ROWS + len(workers) * BATCH_ROWS


def test_rows_that_an_earlier_worker_rejected_count(begin):
    assert ended_after(begin(), [False] * 96) is None
    assert ended_after(begin(), [False] * 1_000) == FIRST_ROWS - 96


def test_a_stage_that_was_ended_has_its_first_rows_anew(begin):
    assert ended_after(begin(), [False] * 1_000)
    assert ended_after(begin(), [False] * 1_000) == FIRST_ROWS
    assert ended_after(begin(), (number > 50 for number in range(1_000))) is None


def test_a_stage_that_works_writes_nothing(begin):
    worker = begin()
    ended_after(worker, [True] * 100)
    writes = worker._spending.store.requests["create"]
    ended_after(worker, [True, False] * 500)
    assert worker._spending.store.requests["create"] == writes
