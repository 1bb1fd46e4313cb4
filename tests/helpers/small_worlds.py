"""Small runs of topics and tasks by plans at random, made in this process, and the promise that they are to keep."""

import asyncio
import functools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from hypothesis import strategies as st

from speed_ray import recipes
from speed_ray.engines.base import Reply, Request, Sample
from speed_ray.executor.shard_worker import Worker
from speed_ray.executor.stage import Stage
from speed_ray.records import TASK, TOPIC, Rejected, Row, content_id, seed_of
from speed_ray.stages import driver_stage
from speed_ray.storage.planned_rows import Inputs, PlannedRow
from speed_ray.storage.run import PROPOSED_TASKS, TOPICS, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.verify import verify
from tests.helpers.ledgers import ledger_of


@dataclass(frozen=True)
class World:
    """A plan at random: topics that are passed on or rejected, then a worker's 0 (rejected) to n records for each.

    `fates` of a prompt are drawn by its place: how many records it gets, and how many malformed replies come first.
    """

    topics: tuple[bool, ...]
    fates: tuple[tuple[int, int], ...]
    topic_shard: int
    task_shard: int
    variants: tuple[str, ...]
    retries: int = 1

    def fate(self, row_id: str) -> tuple[int, int]:
        return self.fates[int(row_id[:8], 16) % len(self.fates)]


SMALL = World((True, False, True, True), ((2, 0), (0, 0), (1, 1)), 3, 2, ("sts", "retrieval"))
WORLDS = st.builds(
    World,
    topics=st.lists(st.booleans(), min_size=1, max_size=6).filter(any).map(tuple),
    fates=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=4).map(tuple),
    topic_shard=st.integers(1, 7),
    task_shard=st.integers(1, 7),
    variants=st.sampled_from([("sts",), ("retrieval", "sts"), ("a", "b", "c")]),
)


class Scripted:
    """An engine that answers as the world's fates say."""

    model, in_flight = "scripted", 8

    def __init__(self, world: World) -> None:
        self.world = world

    async def generate(self, request: Request) -> Reply:
        records, malformed = self.world.fate(request.row_id)
        seeds = [seed_of(0, request.row_id, f"trial {trial}") for trial in range(malformed)]
        text = "" if request.seed in seeds else str(records)
        return Reply([Sample(text, "stop", 3)], prompt_tokens=5, seconds=0.1)


class Fates(Stage):
    """Makes as many records of a topic as the reply says."""

    name, key, record_schema = PROPOSED_TASKS, "brainstorm", TASK

    def plan(self, run: Run) -> Plan:
        raise NotImplementedError("a world has plans of its own")

    def request(self, row: PlannedRow) -> Request:
        return Request(row.row_id, [{"role": "user", "content": row.parent["topic"]}])

    def parse(self, row: PlannedRow, request: Request, reply: Reply) -> list[Row]:
        if reply.samples[0].text in ("", "0"):
            raise Rejected("nothing")
        parent = {"parent_id": row.parent["id"], "topic": row.parent["topic"], "kind": row.variant}
        return [
            {"id": f"{row.row_id}-{i}", "row_id": row.row_id, "task": "t", "model": "m", **parent}
            for i in range(int(reply.samples[0].text))
        ]


@functools.cache
def stage_of(retries: int) -> Fates:
    return Fates(recipes.load_recipe("miniature", ["seed=0", f"brainstorm.max_retries={retries}"]))


def topics_of(world: World) -> Iterator[driver_stage.RowResult]:
    for number, good in enumerate(world.topics):
        row_id = content_id(str(number))
        record = {"id": row_id, "topic": f"topic {number}", "source": ""}
        yield (
            driver_stage.RowResult(row_id, record, None)
            if good
            else driver_stage.reject(row_id, "", TOPICS, "bad", "", "")
        )


def plans_of(world: World) -> tuple[Plan, Plan]:
    tasks = sum(world.topics) * len(world.variants)
    return (
        Plan(TOPICS, rows=len(world.topics), shard_rows=world.topic_shard),
        Plan(PROPOSED_TASKS, rows=tasks, shard_rows=world.task_shard, input=TOPICS, variants=world.variants),
    )


def drive(run: Run, world: World) -> None:
    """Do what a job does: topics, then the work on every pending shard, then publication."""
    topics, tasks = plans_of(world)
    driver_stage.publish_rows(run.artifact(TOPICS), topics, TOPIC, topics_of(world))
    artifact = run.artifact(PROPOSED_TASKS)
    artifact.ensure_plan(tasks)
    if artifact.manifest() is not None:
        return
    inputs = Inputs(run.artifact(TOPICS), tasks)
    worker = Worker(stage_of(world.retries), artifact, tasks, inputs, Scripted(world), ledger_of(run.store))
    while (pending := artifact.pending(tasks)) or not artifact.publish(tasks):
        for shard, generation in pending:
            asyncio.run(worker.work(shard, generation))


def check(run: Run, world: World) -> None:
    """The promise: all planned rows once, by `verify` and by what a reader of the manifest sees."""
    for verdict in verify(run):
        assert verdict.holds, verdict.problems
    _, plan = plans_of(world)
    planned = [
        content_id(topic.row_id, variant) for topic in topics_of(world) if topic.record for variant in plan.variants
    ]
    tasks = run.artifact(PROPOSED_TASKS)
    expected = Counter(f"{row}-{i}" for row in planned for i in range(expected_records(world, row)))
    reader = Inputs(tasks, Plan("readers", rows=expected.total(), shard_rows=5, input=PROPOSED_TASKS, variants=("",)))
    read = [row.parent["id"] for shard in range(reader.plan.shards) for row in reader.of_shard(shard)]
    assert Counter(read) == expected
    counts = tasks.manifest()["counts"]
    assert counts["rejected"] == sum(expected_records(world, row) == 0 for row in planned)
    assert counts["accepted"] + counts["rejected"] == len(planned) == tasks.manifest()["planned"]


def expected_records(world: World, row_id: str) -> int:
    records, malformed = world.fate(row_id)
    return 0 if malformed > world.retries else records
