"""One shard from rows to commit: retries, rejects, and answers that were paid for once."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from speed_ray import recipes
from speed_ray.engines.base import EngineDead, PromptTooLong, Reply, Request, Sample
from speed_ray.errors import UserError
from speed_ray.executor import early_stop
from speed_ray.executor.reply_journal import EVERY, replay
from speed_ray.executor.shard_worker import Worker
from speed_ray.executor.stage import Stage
from speed_ray.executor.usage import usage_of
from speed_ray.records import TASK, TOPIC, Rejected, Row, seed_of
from speed_ray.stages import driver_stage
from speed_ray.storage.planned_rows import Inputs, PlannedRow
from speed_ray.storage.run import PROPOSED_TASKS, TOPICS, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import RECORDS, REJECTS, REPLIES, Artifact, Counts
from speed_ray.storage.verify import verify
from tests.helpers.ledgers import ledger_of

ROWS = 100
RETRIES = 2
Answer = Callable[[int, int], "str | list[Sample] | BaseException"]  # of (row's number, trial)


class Scripted:
    """An engine whose answers a test writes; counts what it was asked. Eight requests run at once."""

    model, in_flight = "scripted", 8

    def __init__(self, answer: Answer, paid: bool = False) -> None:
        self.answer = answer
        self.paid = paid
        self.asked: Counter[tuple[int, int]] = Counter()
        self.room = asyncio.Semaphore(8)

    async def generate(self, request: Request) -> Reply:
        seeds = [seed_of(0, request.row_id, f"trial {trial}") for trial in range(RETRIES + 1)]
        number, trial = int(request.messages[0]["content"]), seeds.index(request.seed)
        async with self.room:
            await asyncio.sleep(0)
            self.asked[number, trial] += 1
            answer = self.answer(number, trial)
        if isinstance(answer, BaseException):
            raise answer
        samples = [Sample(answer, "stop", 3)] if isinstance(answer, str) else answer
        return Reply(samples, prompt_tokens=5, seconds=0.5)


class Numbers(Stage):
    """Asks about each topic but "0", which needs no model."""

    name, key, record_schema = PROPOSED_TASKS, "brainstorm", TASK

    def plan(self, run: Run) -> Plan:
        return Plan(PROPOSED_TASKS, rows=ROWS, shard_rows=ROWS, input=TOPICS, variants=("sts",))

    def request(self, row: PlannedRow) -> Request | None:
        number = row.parent["topic"]
        return None if number == "0" else Request(row.row_id, [{"role": "user", "content": number}], adapter="lora")

    def parse(self, row: PlannedRow, request: Request, reply: Reply) -> list[Row]:
        text = reply.samples[0].text
        if text.startswith("bad"):
            raise Rejected("malformed", text)
        return [self.record(row, text)]

    def without_model(self, row: PlannedRow) -> list[Row]:
        return [self.record(row, "no model")]

    def record(self, row: PlannedRow, text: str) -> Row:
        parent = {"parent_id": row.parent["id"], "topic": row.parent["topic"], "kind": row.variant, "model": "m"}
        return {"id": row.row_id, "row_id": row.row_id, "task": text.encode("utf-8", "replace").decode(), **parent}


class Measured(Numbers):
    """Asks for the log-probabilities of its prompts."""

    def request(self, row: PlannedRow) -> Request | None:
        request = super().request(row)
        return request and replace(request, logprobs="prompt")

    def parse(self, row: PlannedRow, request: Request, reply: Reply) -> list[Row]:
        told = reply.samples[0].logprobs
        if not told:
            raise Rejected("no_logprobs", "none")
        return [self.record(row, told[0]["token"])]


@pytest.fixture
def work(run: Run) -> Callable[..., Counts | None]:
    """Work on the one shard of a plan of 100 rows, about the topics "0" to "99"; "0" asks no model."""
    topics = ({"id": f"id{number}", "topic": str(number), "source": ""} for number in range(ROWS))
    passed: Iterator[driver_stage.RowResult] = (driver_stage.RowResult(topic["id"], topic, None) for topic in topics)
    driver_stage.publish_rows(run.artifact(TOPICS), Plan(TOPICS, rows=ROWS, shard_rows=ROWS), TOPIC, passed)
    recipe = recipes.load_recipe("miniature", ["seed=0", f"brainstorm.max_retries={RETRIES}"])
    artifact, plan = run.artifact(PROPOSED_TASKS), Numbers(recipe).plan(run)
    artifact.ensure_plan(plan)

    def do(engine: Scripted, stage: type[Numbers] = Numbers) -> Counts | None:
        ledger = ledger_of(run.store) if engine.paid else None
        worker = Worker(stage(recipe), artifact, plan, Inputs(run.artifact(TOPICS), plan), engine, ledger)
        return asyncio.run(worker.work(0, 0))

    return do


@pytest.fixture
def artifact(run: Run) -> Artifact:
    return run.artifact(PROPOSED_TASKS)


def rows(artifact: Artifact, role: str) -> list[Row]:
    (commit,) = artifact.commits()
    return artifact.read(commit.files[role].path).to_pylist() if role in commit.files else []


def test_a_malformed_reply_gets_a_new_seed_and_in_the_end_a_reject_with_its_text(work, artifact):
    engine = Scripted(lambda number, trial: f"bad {trial}" if number == 7 or (number == 8 and trial < 1) else "good")
    counts = work(engine)
    assert engine.asked == {(number, 0): 1 for number in range(1, ROWS)} | {(7, 1): 1, (7, 2): 1, (8, 1): 1}
    assert counts == Counts(
        accepted=99, rejected=1, records=99, calls=102, retries=3, prompt_tokens=5 * 102, output_tokens=3 * 102,
        kinds={"sts": 99}, reasons={"malformed": 1},
    )  # fmt: skip
    (reject,) = rows(artifact, REJECTS)
    assert (reject["parent_id"], reject["reason"], reject["detail"], reject["text"]) == (
        "id7", "malformed", "bad 2", "bad 2"
    )  # fmt: skip
    replies = [row for row in rows(artifact, REPLIES) if row["messages"][0]["content"] == "7"]
    assert [(row["trial"], row["text"]) for row in replies] == [(0, "bad 0"), (1, "bad 1"), (2, "bad 2")]
    assert len({row["seed"] for row in replies}) == 3
    assert {(row["adapter"], row["model"], row["finish_reason"]) for row in replies} == {
        ("lora", "scripted-teacher", "stop")
    }


def test_a_row_that_asks_no_model_costs_no_call(work, artifact):
    engine = Scripted(lambda number, trial: "good")
    assert work(engine).accepted == ROWS
    assert engine.asked.total() == ROWS - 1 == len(rows(artifact, REPLIES))
    assert rows(artifact, RECORDS)[0]["task"] == "no model"


def test_a_prompt_that_is_too_long_is_rejected_at_once(work, artifact):
    engine = Scripted(lambda number, trial: PromptTooLong("9000 of 4096 tokens") if number == 3 else "good")
    counts = work(engine)
    assert engine.asked[3, 0] == 1 and engine.asked[3, 1] == 0
    assert (counts.reasons, counts.retries, counts.calls) == ({"prompt_too_long": 1}, 0, ROWS - 2)
    assert [(row["detail"], row["text"]) for row in rows(artifact, REJECTS)] == [("9000 of 4096 tokens", "")]


def test_a_reply_that_was_cut_off_says_so(work, artifact):
    engine = Scripted(lambda number, trial: [Sample("bad", "length", 800)] if number == 5 else "good")
    assert work(engine).reasons == {"cut_off": 1}
    (reject,) = rows(artifact, REJECTS)
    assert reject["detail"] == "the reply reached max_tokens; read as it is: malformed: bad"


def test_logprobs_are_stored_whatever_the_reply_says(work, artifact):
    told = [{"token": "a\ud83d", "logprob": -1.5}]
    engine = Scripted(lambda number, trial: [Sample(" ", "length", 1, told if number != 5 else [])])
    assert work(engine, Measured).reasons == {"no_logprobs": 1}
    assert {row["task"] for row in rows(artifact, RECORDS)} == {"no model", "a?"}
    stored = [row["logprobs"] for row in rows(artifact, REPLIES) if row["messages"][0]["content"] != "5"]
    assert stored == [[{"token": "a?", "logprob": -1.5}]] * (ROWS - 2)


def test_all_samples_are_kept_and_one_prompt_is_counted_once(work, artifact):
    counts = work(Scripted(lambda number, trial: [Sample(f"text {i}", "stop", 10 + i) for i in range(4)]))
    assert (counts.calls, counts.prompt_tokens, counts.output_tokens) == (99, 99 * 5, 99 * (10 + 11 + 12 + 13))
    replies = rows(artifact, REPLIES)
    assert Counter(row["sample"] for row in replies) == dict.fromkeys(range(4), 99)
    assert {row["text"] for row in replies} == {f"text {i}" for i in range(4)}


@pytest.mark.parametrize("paid", [False, True])
def test_half_of_a_surrogate_pair_is_stored(work, artifact, paid):
    engine = Scripted(lambda number, trial: f"{'bad ' if number == 2 else ''}a\ud83d \x00 😀", paid)
    assert work(engine).rejected == 1
    assert {row["text"] for row in rows(artifact, REPLIES)} == {"a? \x00 😀", "bad a? \x00 😀"}
    assert rows(artifact, REJECTS)[0]["text"] == "bad a? \x00 😀"


def test_a_shard_that_is_committed_is_not_asked_about_again(work, artifact):
    assert work(Scripted(lambda number, trial: "good")) is not None
    engine = Scripted(lambda number, trial: "other")
    assert work(engine) is None
    assert engine.asked.total() == 0


@pytest.mark.parametrize("error", [EngineDead("gone"), asyncio.CancelledError()])
def test_what_a_paid_engine_answered_before_its_death_is_not_asked_again(work, run, artifact, error):
    def dies(number: int, trial: int) -> str | BaseException:
        return error if number >= 60 else "bad" if (number, trial) == (10, 0) else f"first {number}"

    first = Scripted(dies, paid=True)
    with pytest.raises(type(error)):
        work(first)
    answered = Counter({key: 1 for key in first.asked if key[0] < 60})
    assert set(key[1] for key in replay(artifact, 0)) == {0, 1} and len(replay(artifact, 0)) == answered.total() == 60
    assert usage_of(run, "teacher").calls == 60
    second = Scripted(lambda number, trial: f"second {number}", paid=True)
    counts = work(second)
    assert second.asked == {(number, 0): 1 for number in range(60, ROWS)}
    assert (counts.calls, counts.retries, counts.prompt_tokens) == (100, 1, 500)
    assert usage_of(run, "teacher").calls == 100
    tasks = [row["task"] for row in rows(artifact, RECORDS)]
    assert tasks[1:] == [f"{'first' if number < 60 else 'second'} {number}" for number in range(1, ROWS)]
    artifact.publish(artifact.plan())
    assert all(verdict.holds for verdict in verify(run))


def test_an_abandoned_event_loop_costs_at_most_what_was_in_flight_and_one_batch(work, artifact, monkeypatch):
    """A killed process flushes nothing: the loop stops for good in the middle of an answer.

    The store is as fast as the replies: with a slower one, what is answered during a write is lost with that write.
    """

    async def at_once(write: Callable[..., object], *arguments: object) -> object:
        return write(*arguments)

    monkeypatch.setattr(asyncio, "to_thread", at_once)

    class Killed(SystemExit):
        """Ends asyncio.run from inside a task, as nothing that an engine raises does."""

    answered = []

    def dies(number: int, trial: int) -> str:
        if number == 70:
            raise Killed
        answered.append(number)
        return "first"

    with pytest.raises(Killed):
        work(Scripted(dies, paid=True))
    second = Scripted(lambda number, trial: "second", paid=True)
    assert work(second).accepted == ROWS
    again = len([number for number in answered if second.asked[number, 0]])
    assert again <= EVERY + second.in_flight
    assert len(answered) > EVERY + second.in_flight


def test_a_damaged_journal_is_asked_again_and_the_others_are_not(work, artifact):
    first = Scripted(lambda number, trial: EngineDead("gone") if number == 99 else "first", paid=True)
    with pytest.raises(EngineDead):
        work(first)
    names = [name for name in artifact.names("attempts/00000000") if "-journal-" in name]
    assert len(names) == -(-98 // EVERY)
    spoils = [lambda data: data[:-9], lambda data: data.replace(b"first", b"worst", 1)]
    for name, spoil in zip(names[:2], spoils, strict=True):
        path = f"attempts/00000000/{name}"
        artifact.put(path, spoil(artifact.get(path)))
    artifact.put("attempts/00000000/abc-journal-1.jsonl", b"")
    second = Scripted(lambda number, trial: "second", paid=True)
    assert work(second).accepted == ROWS
    lost = [len(artifact.get(f"attempts/00000000/{name}").split(b"\n")) - 1 for name in names[:2]]
    assert second.asked.total() == sum(lost) + 1
    assert Counter(row["task"] for row in rows(artifact, RECORDS))["worst"] == 0


def test_an_engine_that_costs_nothing_leaves_no_journal(work, artifact):
    with pytest.raises(EngineDead):
        work(Scripted(lambda number, trial: EngineDead("gone") if number == 50 else "first"))
    assert artifact.names("attempts") == []


def test_two_attempts_at_one_shard_count_once(work, artifact, run):
    """Another driver commits while this one's engine is answering."""
    other = Scripted(lambda number, trial: "other")

    def slow(number: int, trial: int) -> str:
        if number == 50 and not artifact.is_committed(0, 0):
            done.append(run_elsewhere(lambda: work(other)))
        return "mine"

    done: list[Counts | None] = []
    assert work(Scripted(slow)) is None
    assert done[0].accepted == ROWS
    assert {row["task"] for row in rows(artifact, RECORDS)} == {"no model", "other"}


def run_elsewhere(job: Callable[[], Counts | None]) -> Counts | None:
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(job).result()


def test_a_paid_stage_of_which_nothing_is_accepted_ends_early(work, artifact, monkeypatch):
    monkeypatch.setattr(early_stop, "FIRST_ROWS", 32)
    engine = Scripted(lambda number, trial: [Sample("", "length", 800)], paid=True)
    with pytest.raises(UserError, match=r"0 of the latest \d+ rows of a worker were accepted \(no_content ") as caught:
        work(engine)
    assert "brainstorm.sampling.max_tokens (now " in str(caught.value)
    assert "this stage's settings may still change in this run" in str(caught.value)
    assert 32 <= engine.asked.total() <= 32 + 2 * engine.in_flight, "rows were asked again, or on to the end"
    assert not artifact.has_commits()
    put_right = Scripted(lambda number, trial: "good", paid=True)
    assert work(put_right).accepted == ROWS, "what was put right outside of the plan is not asked again"


def test_a_paid_stage_that_stops_working_keeps_what_was_accepted(work, artifact, monkeypatch):
    monkeypatch.setattr(early_stop, "LIMIT", 32)
    engine = Scripted(lambda number, trial: "bad" if number > 30 else "first", paid=True)
    with pytest.raises(UserError, match="rows of a worker were accepted"):
        work(engine)
    put_right = Scripted(lambda number, trial: "second", paid=True)
    assert work(put_right).accepted == ROWS
    assert put_right.asked == {(number, 0): 1 for number in range(31, ROWS)}
    assert Counter(row["task"] for row in rows(artifact, RECORDS))["first"] == 30


def test_one_accepted_row_lets_a_paid_stage_go_on(work):
    engine = Scripted(lambda number, trial: "good" if number == 20 else "bad", paid=True)
    assert work(engine).rejected == ROWS - 2


@pytest.mark.parametrize(
    ("finish", "text", "reason"),
    [("content_filter", "", "filtered"), ("refusal", "I will not.", "refused"), ("length", " \n", "no_content")],
)
def test_a_row_that_nobody_will_answer_is_asked_once(work, artifact, finish, text, reason):
    engine = Scripted(lambda number, trial: [Sample(text, finish, 3)] if number == 7 else "good")
    assert work(engine).reasons == {reason: 1}
    assert engine.asked[7, 0] == 1 and engine.asked[7, 1] == 0
