"""End a paid stage early that gets nowhere: nearly all of its latest rows are rejected.

A rejected row adds 1 to a sum and an accepted one takes 50 from it, but never more than it holds: the CUSUM test of 5%
accepted rows against 0.5%. At 400 the stage ends. A new stage begins at 272, so that 128 rejects in a row end one that
never worked. Simulated, 20,000 stages of 32,000 rows each: with 5% accepted 48 end in the beginning and none later,
with 10% none at all, with 2% all but one or two. (At 5%, 32 rejects in a row begin one stage of five.)

The sum is in the run's balance (storage/spending.py): workers at the same time count together, and later ones go on
from it.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from speed_ray.errors import UserError
from speed_ray.executor.stage import Stage
from speed_ray.records import RejectRow
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import Artifact
from speed_ray.storage.spending import Balance, Spending

LIMIT = 400
ACCEPTED = 50  # rejected rows that an accepted one makes up for
FIRST_ROWS = 128  # all rejected, they end a stage
BATCH_ROWS = 16  # between two looks at the sum in storage
SHOWN_CHARS = 200
SHORT_OF_TOKENS = {"no_content", "cut_off"}


class GetsNowhere(UserError):
    """Signals that nearly none of a stage's latest rows was accepted."""


class EarlyStop:
    """Counts the outcomes of the rows that a worker pays for."""

    def __init__(self, stage: Stage[Any, Any], artifact: Artifact, plan: Plan, spending: Spending) -> None:
        self.stage = stage
        self.artifact = artifact
        self.error: GetsNowhere | None = None
        self._spending = spending
        self._plan = plan.digest
        self._begin = LIMIT - min(FIRST_ROWS, plan.rows)
        self._latest = deque[RejectRow | None](maxlen=LIMIT)
        self._batch: list[int] = []  # what this worker's rows change, until it is stored
        self._pending = 0  # what is being stored: rows that would reach the limit with it wait for what others stored
        self._sum = self._sum_in(spending.balance())
        if self._sum >= LIMIT:  # it was ended; what was put right since shows in as many rows as a new stage has
            self._sum = self._store(lambda ended: min(ended, self._begin))

    async def count(self, reject: RejectRow | None) -> None:
        """Count the outcome of one row that was paid for. Sets `error` once no more should be paid for."""
        self._latest.append(reject)
        self._batch.append(1 if reject else -ACCEPTED)
        if len(self._batch) >= BATCH_ROWS or self._sum + self._pending + sum(self._batch) >= LIMIT:
            change, self._batch = sum(self._batch), []
            self._pending += change
            await asyncio.to_thread(self._add, change)
            self._pending -= change

    def check(self) -> None:
        """Raise GetsNowhere where no more rows should be paid for."""
        if self.error:
            raise self.error

    def _add(self, change: int) -> None:
        self._sum = self._sum_in(self._spending.balance())
        if self._sum or change > 0:  # else the stage works, and nothing is written
            self._sum = self._store(lambda stored: max(0, stored + change))
        if self._sum >= LIMIT and not self.error:
            self.error = GetsNowhere(self._explain())

    def _sum_in(self, balance: Balance) -> int:
        return balance.rejects.get(self._plan, self._begin)

    def _store(self, changed: Callable[[int], int]) -> int:
        def next_balance(balance: Balance) -> Balance:
            rejects = {**balance.rejects, self._plan: changed(self._sum_in(balance))}
            return replace(balance, version=balance.version + 1, rejects=rejects)

        return self._sum_in(self._spending.change(next_balance))

    def _explain(self) -> str:
        rejects = [outcome for outcome in self._latest if outcome]
        accepted, last = len(self._latest) - len(rejects), rejects[-1]
        reasons = Counter(reject["reason"] for reject in rejects)
        counted = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
        return (
            f"{self.stage.name}: {accepted} of the latest {len(self._latest)} rows of a worker were accepted "
            f"({counted}), so no more are paid for.\n"
            f"Row {last['row_id']}: {last['detail'][:SHOWN_CHARS]!r}; its reply: {last['text'][:SHOWN_CHARS]!r}\n"
            f"{self._advice(reasons)}\n{self._way_on()}"
        )

    def _advice(self, reasons: Counter[str]) -> str:
        key = self.stage.settings.key
        if 2 * sum(reasons[reason] for reason in SHORT_OF_TOKENS) <= reasons.total():
            return f"Change what they are rejected for: the settings under {key}, or the prompts."
        return (
            f"Raise {key}.sampling.max_tokens (now {self.stage.sampling.max_tokens}); a model that thinks "
            "first needs thousands."
        )

    def _way_on(self) -> str:
        if self.artifact.accepted_at_least():
            return (
                "Rows of this stage are accepted already, so its settings can change in another --run folder alone. "
                "Where it was the endpoint that failed, run the same command again: what was accepted is kept, and "
                "rows that are not stored yet are asked anew."
            )
        return (
            "Then run the same command again: this stage's settings may still change in this run. Those of the "
            f"{self.stage.role}, such as model and extra_body, may until it has answered another stage: then begin "
            "another run."
        )
