"""Run one shard through one engine: render, generate, parse, then write and commit the results."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from speed_ray.engines.base import Engine, Reply, Request, RequestRefused
from speed_ray.engines.budget import Ledger
from speed_ray.executor import former_replies
from speed_ray.executor.early_stop import EarlyStop, GetsNowhere
from speed_ray.executor.former_replies import Samples
from speed_ray.executor.reply_journal import Answer, Journal, forget_replies, replay
from speed_ray.executor.stage import Stage
from speed_ray.recipes.engine_settings import VllmEngine
from speed_ray.records import REJECT, REPLY, Rejected, RejectRow, ReplyRow, Row, seed_of
from speed_ray.storage.attempt import Attempt
from speed_ray.storage.fingerprint import model_label, without_adapter
from speed_ray.storage.planned_rows import FollowedInputs, Inputs, PlannedRow
from speed_ray.storage.shard_leases import ShardLeases
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import RECORDS, REJECTS, REPLIES, Artifact, Counts

LEASE_POLL_SECONDS = 1.0  # between two looks at a shard that another driver works at


@dataclass
class Outcome:
    """Hold all replies to one planned row, and either its records or its reject."""

    replies: list[ReplyRow] = field(default_factory=list)
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    records: list[Row] = field(default_factory=list)
    reject: RejectRow | None = None
    asked: bool = False  # an engine was, now; an earlier attempt's replies were counted then
    taken_over: set[int] = field(default_factory=set)  # trials whose reply an earlier run has paid for

    @property
    def new_replies(self) -> list[ReplyRow]:
        """Return the replies that this run asked for."""
        return [reply for reply in self.replies if reply["trial"] not in self.taken_over]


@dataclass(frozen=True)
class StoredReplies:
    """Hold the replies to a shard's rows that are there: of attempts that ended early, and of an earlier run."""

    journal: Journal | None
    paid: dict[Answer, Reply]
    former: dict[Answer, Samples]


class Worker:
    """Run any number of shards at once through one engine, which decides how many requests run."""

    def __init__(
        self,
        stage: Stage[Any, Any],
        artifact: Artifact,
        plan: Plan,
        inputs: Inputs | FollowedInputs,
        engine: Engine,
        ledger: Ledger | None,
    ) -> None:
        """Prepare the work. Where calls cost money, shards are leased, replies journalled and calls in the ledger."""
        self.stage = stage
        self.artifact = artifact
        self.plan = plan
        self.inputs = inputs
        self.engine = engine
        self.ledger = ledger
        self._leases = ShardLeases(artifact, ledger.holder) if ledger else None
        self._former = former_replies.open_former(stage, artifact, plan)
        self._early = EarlyStop(stage, artifact, plan, ledger.spending) if ledger else None
        self.model = model_label(without_adapter(stage.engine))
        self.adapter = stage.engine.adapter if isinstance(stage.engine, VllmEngine) else None
        # At most twice the rows that the engine answers at once: rendering a whole shard's prompts in one go blocks
        # the event loop and the replies that come in meanwhile (an endpoint with 64 in flight lost a fifth).
        self._row_slots = asyncio.Semaphore(2 * engine.in_flight)

    async def work(self, shard: int, generation: int) -> Counts | None:
        """Run and commit one shard. Returns None where another driver committed it before or during this attempt."""
        if not await self._begin(shard, generation):
            return None
        try:
            return await self._work(shard, generation)
        except BaseException:
            if self._leases:
                await asyncio.to_thread(self._leases.give_back, shard, generation)
            raise

    async def _begin(self, shard: int, generation: int) -> bool:
        """Return True once this worker may begin, False where another driver has committed the shard."""
        while not await asyncio.to_thread(self.artifact.is_committed, shard, generation):
            if self._leases is None or await asyncio.to_thread(self._leases.take, shard, generation):
                return True
            await asyncio.sleep(LEASE_POLL_SECONDS)
        return False

    async def _work(self, shard: int, generation: int) -> Counts | None:
        # Before the rows: an attempt that was made anew in between is then found to differ, and no other way around.
        source = await asyncio.to_thread(self.inputs.attempt_read, shard)
        attempt = Attempt(self.artifact, self.plan, shard, generation, source)
        rows = await asyncio.to_thread(self.inputs.of_shard, shard)
        plan = self.plan.digest
        journal = Journal(self.artifact, shard, attempt.id, plan) if self.ledger else None
        paid = await asyncio.to_thread(replay, self.artifact, shard, plan) if journal else {}
        ids = [row.row_id for row in rows]
        former: dict[Answer, Samples] = {}
        for earlier in self._former:
            former |= await asyncio.to_thread(earlier.of_rows, ids)
        stored = StoredReplies(journal, paid, former)
        # Every row comes to its end before one that failed is raised: a call in flight may be a paid one.
        ends = await asyncio.gather(*(self._in_turn(row, stored) for row in rows), return_exceptions=True)
        if self.ledger:
            await self.ledger.give_back()
        outcomes = [end for end in ends if isinstance(end, Outcome)]
        if failed := self._failed(ends):
            if journal:
                await journal.flush()
            if isinstance(failed, GetsNowhere):  # what is put right may lie outside of the plan: in a server, say
                rejected = {outcome.reject["row_id"] for outcome in outcomes if outcome.reject}
                await asyncio.to_thread(forget_replies, self.artifact, shard, rejected)
            raise failed
        return await asyncio.to_thread(self._commit, attempt, rows, outcomes)

    def _failed(self, ends: list[Outcome | BaseException]) -> BaseException | None:
        """Return what must be raised in place of a commit: of rows that were rejected one and all, the early end."""
        if failed := next((end for end in ends if isinstance(end, BaseException)), None):
            return failed
        all_rejected = all(isinstance(end, Outcome) and end.reject for end in ends)
        return self._early.error if self._early and all_rejected else None

    async def _in_turn(self, row: PlannedRow[Any], stored: StoredReplies) -> Outcome:
        async with self._row_slots:
            if self._early is None:
                return await self._answer(row, stored)
            self._early.check()
            outcome = await self._answer(row, stored)
            if outcome.asked:
                await self._early.count(outcome.reject)
            return outcome

    async def _answer(self, row: PlannedRow[Any], stored: StoredReplies) -> Outcome:
        request = self.stage.request(row)
        if request is None:
            return self._finish_without_model(row)
        outcome = Outcome()
        # At temperature 0 the same prompt would have the same reply again.
        trials = self.stage.max_retries + 1 if request.temperature else 1
        for trial in range(trials):
            seed = seed_of(self.stage.recipe.seed, row.row_id, f"trial {trial}")
            request = replace(request, seed=seed, adapter=request.adapter or self.adapter)
            try:
                reply = former_replies.same_prompt(stored.former.get((row.row_id, trial)), request)
                if reply is None:
                    reply = await self._ask(outcome, request, trial, stored)
                else:
                    outcome.taken_over.add(trial)
            except RequestRefused as error:
                self._finish_without_reply(outcome, row, Rejected(error.reason, str(error)), "")
                return outcome
            outcome.replies += self._replies(request, reply, trial)
            outcome.cached_tokens += reply.cached_tokens
            outcome.reasoning_tokens += reply.reasoning_tokens
            if final := _unanswerable(request, reply):
                self._finish_without_reply(outcome, row, final, reply.samples[0].text)
                return outcome
            try:
                outcome.records, outcome.reject = self.stage.parse(row, request, reply), None
                return outcome
            except Rejected as rejected:
                cut_off = _cut_off(rejected, request, reply)
                self._finish_without_reply(outcome, row, cut_off, reply.samples[0].text)
        return outcome

    async def _ask(self, outcome: Outcome, request: Request, trial: int, stored: StoredReplies) -> Reply:
        """Return the model's reply, which an attempt that ended early may have journalled."""
        reply = stored.paid.get((request.row_id, trial))
        if reply is None:
            outcome.asked = True
            reply = await self.engine.generate(request)
            if stored.journal:
                await stored.journal.add(request.row_id, trial, reply)
        return reply

    def _finish_without_model(self, row: PlannedRow[Any]) -> Outcome:
        try:
            return Outcome(records=self.stage.without_model(row))
        except Rejected as rejected:
            return Outcome(reject=self._reject(row, rejected, ""))

    def _finish_without_reply(self, outcome: Outcome, row: PlannedRow[Any], rejected: Rejected, text: str) -> None:
        """Set the outcome of a row whose replies so far are unfit: the stage's fallback records, or a reject."""
        try:
            outcome.records = self.stage.fallback(row, rejected)
        except Rejected:
            outcome.reject = self._reject(row, rejected, text)

    def _replies(self, request: Request, reply: Reply, trial: int) -> list[ReplyRow]:
        return [
            {
                "row_id": request.row_id,
                "trial": trial,
                "sample": number,
                "messages": request.messages,
                "text": _storable(sample.text),
                "finish_reason": sample.finish_reason,
                "prompt_tokens": reply.prompt_tokens if number == 0 else 0,  # one prompt, however many samples
                "output_tokens": sample.output_tokens,
                "seconds": reply.seconds,
                "seed": request.seed,
                "model": self.model,
                "adapter": request.adapter and Path(request.adapter).name,  # the folder may move
                "logprobs": [{**each, "token": _storable(each["token"])} for each in sample.logprobs],
            }
            for number, sample in enumerate(reply.samples)
        ]

    def _reject(self, row: PlannedRow[Any], rejected: Rejected, text: str) -> RejectRow:
        return {
            "row_id": row.row_id,
            "parent_id": row.parent["id"],
            "stage": self.stage.name,
            "kind": self.stage.kind_of(row),
            "reason": rejected.reason,
            "detail": _storable(rejected.detail),
            "text": _storable(text),
        }

    def _commit(self, attempt: Attempt, rows: list[PlannedRow[Any]], outcomes: list[Outcome]) -> Counts | None:
        replies = [reply for outcome in outcomes for reply in outcome.replies]
        records = [record for outcome in outcomes for record in outcome.records]
        rejects = [outcome.reject for outcome in outcomes if outcome.reject]
        attempt.write(REPLIES, replies, REPLY)
        attempt.write(RECORDS, records, self.stage.record_schema)
        attempt.write(REJECTS, rejects, REJECT)
        new = [reply for outcome in outcomes for reply in outcome.new_replies]
        calls = sum(reply["sample"] == 0 for reply in new)
        asked = sum(bool(outcome.new_replies) for outcome in outcomes)
        counts = Counts(
            accepted=len(outcomes) - len(rejects),
            rejected=len(rejects),
            records=len(records),
            calls=calls,
            retries=calls - asked,
            prompt_tokens=sum(reply["prompt_tokens"] for reply in new),
            output_tokens=sum(reply["output_tokens"] for reply in new),
            cached_tokens=sum(outcome.cached_tokens for outcome in outcomes),
            reasoning_tokens=sum(outcome.reasoning_tokens for outcome in outcomes),
            kinds=dict(Counter(record["kind"] for record in records)),
            reasons=dict(Counter(reject["reason"] for reject in rejects)),
        )
        return counts if attempt.commit([row.row_id for row in rows], counts) else None


def _unanswerable(request: Request, reply: Reply) -> Rejected | None:
    """Return the reject of a row that it would be no use to ask again, None for any other."""
    first = reply.samples[0]
    if all(sample.finish_reason == "content_filter" for sample in reply.samples):
        return Rejected("filtered", "a content filter refused the prompt or its reply")
    if all(sample.finish_reason == "refusal" for sample in reply.samples):
        return Rejected("refused", first.text)
    is_cut = all(sample.finish_reason == "length" and not sample.text.strip() for sample in reply.samples)
    if is_cut and request.logprobs is None:  # else it is not the text that counts
        return Rejected("no_content", "max_tokens were used up before the text began: by a model's thoughts, perhaps")
    return None


def _cut_off(rejected: Rejected, request: Request, reply: Reply) -> Rejected:
    if reply.samples[0].finish_reason != "length" or request.logprobs is not None:
        return rejected
    return Rejected("cut_off", f"the reply reached max_tokens; read as it is: {rejected}")


def _storable(text: str) -> str:
    """Replace lone surrogates, which neither Parquet nor UTF-8 can hold. Everything else is kept as it came."""
    return text.encode("utf-8", "replace").decode()
