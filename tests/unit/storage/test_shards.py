"""Exactly-once, however the work is killed: every operation on the store is a place where a driver can die."""

import asyncio
import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from obstore.store import MemoryStore

from speed_ray import recipes
from speed_ray.engines.base import Reply, Request, Sample
from speed_ray.errors import Interrupted, UserError
from speed_ray.executor.early_stop import EarlyStop
from speed_ray.executor.shard_worker import Worker
from speed_ray.executor.stage import Stage
from speed_ray.records import REJECT, TASK, TOPIC, Rejected, Row, content_id, seed_of
from speed_ray.stages import driver_stage
from speed_ray.storage.attempt import Attempt
from speed_ray.storage.planned_rows import Inputs, PlannedRow
from speed_ray.storage.repair import repair_run
from speed_ray.storage.run import PROPOSED_TASKS, TOPICS, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import RECORDS, REJECTS, Counts
from speed_ray.storage.store import AccessRefused, ObjectStore
from speed_ray.storage.sweep import sweep_artifact
from speed_ray.storage.verify import verify
from tests.helpers.crashing_drivers import AFTER, BEFORE, LOST, Crash, Troubled, Turn, interleave
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
TROUBLES = st.dictionaries(st.integers(0, 80), st.sampled_from([BEFORE, AFTER, LOST]), max_size=3)


@pytest.fixture(autouse=True)
def no_early_stop(monkeypatch):
    """A world may reject all of its rows."""
    monkeypatch.setattr(EarlyStop, "check", lambda self: None)


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
    """What a job does: topics, then the work on every pending shard, then publication."""
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


def check_commits_are_whole(run: Run) -> None:
    """No commit that counts names a missing file; nothing is published that is not all there."""
    for name in (TOPICS, PROPOSED_TASKS):
        artifact = run.artifact(name)
        for commit in artifact.commits():
            assert not [entry.path for entry in commit.files.values() if artifact.damage(entry)]
        if manifest := artifact.manifest():
            assert [shard["shard"] for shard in manifest["shards"]] == list(range(artifact.plan().shards))


@pytest.mark.parametrize("trouble", [BEFORE, AFTER, LOST])
def test_every_crash_point_of_one_driver(run_on, trouble):
    counting = Troubled(MemoryStore(), {})
    drive(run_on(counting), SMALL)
    operations = counting.operations
    assert operations > 50
    for point in range(operations):
        backend = MemoryStore()
        with contextlib.suppress(Crash):
            drive(run_on(Troubled(backend, {point: trouble})), SMALL)
            assert trouble == LOST
        clean = run_on(ObjectStore(backend, "memory://"))
        check_commits_are_whole(clean)
        drive(clean, SMALL)
        check(clean, SMALL)


@given(WORLDS, st.lists(TROUBLES, min_size=2, max_size=3), st.lists(st.integers(0, 2), min_size=1, max_size=40))
def test_drivers_side_by_side_and_killed(run_on, world, troubles, choices):
    backend = MemoryStore()

    def job(own: dict[int, str]) -> Callable[[Turn], None]:
        return lambda turn: drive(run_on(Troubled(backend, own, turn)), world)

    interleave([job(own) for own in troubles], choices)
    clean = run_on(ObjectStore(backend, "memory://"))
    check_commits_are_whole(clean)
    drive(clean, world)
    check(clean, world)


HOW = st.sampled_from(["torn", "flipped", "deleted"])


def vandalise(backend: MemoryStore, which: int, how: str, artifact: str = "") -> str:
    """Damage a file that is in the store, one of an artifact's data files where one is named. Returns its path."""
    store = ObjectStore(backend, "memory://")
    stored = [path for path in store.names("") if path.startswith(artifact)]
    parts = [path for path in stored if path.endswith(".parquet") or ("/commits/" in path and not artifact)]
    if not parts:
        return ""
    path = parts[which % len(parts)]
    data = store.get(path)
    if how == "deleted" or "/commits/" in path:
        store.delete(path)
    else:
        middle = len(data) // 2
        store.put(path, data[:middle] + (b"" if how == "torn" else bytes([data[middle] ^ 1]) + data[middle + 1 :]))
    return path


@given(
    WORLDS,
    st.lists(TROUBLES, min_size=1, max_size=2),
    st.lists(st.integers(0, 2), min_size=1, max_size=40),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20), HOW), min_size=1, max_size=2),
)
def test_damage_at_any_moment_heals(run_on, world, troubles, choices, damages):
    backend = MemoryStore()

    def job(own: dict[int, str]) -> Callable[[Turn], None]:
        return lambda turn: drive(run_on(Troubled(backend, own, turn)), world)

    def vandal(turn: Turn) -> None:
        for wait, which, how in damages:
            for _ in range(wait):
                with turn():
                    pass
            with turn():
                vandalise(backend, which, how)

    # A commit may vanish between its listing and its reading; any end is good that the next drive goes on from.
    with contextlib.suppress(UserError, Interrupted, FileNotFoundError):
        interleave([*(job(own) for own in troubles), vandal], choices)
    clean = run_on(ObjectStore(backend, "memory://"))
    for _ in range(3):  # damage to topics first, then to what was made of them
        with contextlib.suppress(UserError, Interrupted):
            drive(clean, world)
        verdicts = verify(clean)
        if all(verdict.holds for verdict in verdicts):
            break
        repair_run(clean, verdicts)
    check(clean, world)


@pytest.fixture
def finished(run) -> Run:
    """A run whose two artifacts are published."""
    drive(run, SMALL)
    return run


@pytest.mark.parametrize("how", ["torn", "flipped", "deleted"])
def test_damage_before_publication_costs_one_shard(run, how):
    drive(run, SMALL)
    artifact = run.artifact(PROPOSED_TASKS)
    artifact.unpublish()
    before = {commit.shard: commit.attempt for commit in artifact.commits()}
    path = vandalise(run.store.backend, 0, how, PROPOSED_TASKS)
    drive(run, SMALL)
    after = {commit.shard: commit.attempt for commit in artifact.commits()}
    shard = int(path.split("/")[2])
    assert [number for number in before if before[number] != after[number]] == [shard]
    check(run, SMALL)


@pytest.mark.parametrize("how", ["torn", "flipped", "deleted"])
def test_damage_after_publication_is_named_and_healed(finished, how):
    path = vandalise(finished.store.backend, 0, how, TOPICS)
    topics, tasks = verify(finished)
    assert not topics.holds and path in topics.problems[0]
    assert not tasks.holds, "rows cannot be proven against an input that is damaged"
    assert repair_run(finished, [topics, tasks]) == 1
    drive(finished, SMALL)
    check(finished, SMALL)


def test_a_flipped_bit_is_never_read_as_another_row(run):
    plan = Plan(TOPICS, rows=50, shard_rows=50)
    rows = [{"id": str(i), "topic": content_id(str(i)), "source": content_id(f"s{i}")} for i in range(50)]
    artifact = run.artifact(TOPICS)
    driver_stage.publish_rows(artifact, plan, TOPIC, (driver_stage.RowResult(row["id"], row, None) for row in rows))
    path = next(artifact.commits()).files[RECORDS].path
    data = artifact.get(path)
    noticed = 0
    for place in range(4, len(data) - 8, 29):
        artifact.put(path, data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        try:
            # By value: the footer, with the columns' names, has no checksum, but a wrong name is a loud KeyError.
            assert [list(row.values()) for row in artifact.read(path).to_pylist()] == [
                list(row.values()) for row in rows
            ]
        except Interrupted as error:
            assert path in str(error)
            noticed += 1
    assert noticed > 50


def test_a_commit_deleted_after_publication_is_missed_and_made_anew(finished):
    artifact = finished.artifact(PROPOSED_TASKS)
    finished.store.delete(f"{PROPOSED_TASKS}/commits/00000001.0.json")
    verdicts = verify(finished)
    assert verdicts[1].missing == len(artifact.plan().rows_of(1))
    repair_run(finished, verdicts)
    drive(finished, SMALL)
    check(finished, SMALL)


@pytest.mark.parametrize("name", ["commits/00000000.0.json", "_MANIFEST.json"])
def test_a_damaged_file_of_the_protocol_is_named_and_may_be_deleted(finished, name):
    artifact = finished.artifact(PROPOSED_TASKS)
    artifact.put(name, artifact.get(name)[:50])
    with pytest.raises(Interrupted, match=f"{name} is damaged"):
        verify(finished)
    finished.store.delete(f"{PROPOSED_TASKS}/{name}")
    repair_run(finished, verify(finished))
    drive(finished, SMALL)
    check(finished, SMALL)


def test_a_commit_with_values_of_other_types_is_damaged(finished):
    finished.artifact(PROPOSED_TASKS).put("commits/00000000.0.json", b'{"files": "x"}')
    with pytest.raises(Interrupted, match=r"commits/00000000\.0\.json is damaged"):
        verify(finished)


def test_a_plan_with_values_of_other_types_is_damaged(run):
    artifact = run.artifact(TOPICS)
    artifact.put("plan.json", Plan(TOPICS, rows=3, shard_rows=2).to_json().replace(b"3", b'"x"'))
    with pytest.raises(Interrupted, match=r"plan\.json is damaged"):
        artifact.plan()


def test_a_manifest_that_says_another_thing_than_the_commits_is_reported(finished):
    artifact = finished.artifact(PROPOSED_TASKS)
    artifact.put("_MANIFEST.json", artifact.get("_MANIFEST.json").replace(b'"records": 2', b'"records": 3', 1))
    assert "_MANIFEST.json" in verify(finished)[1].problems[0]


def test_a_manifest_left_by_a_driver_that_died_does_not_outlive_its_commits(run):
    """The driver died between `_MANIFEST.json` and `_SUCCESS`, and then a file that the manifest names was lost."""
    drive(run, SMALL)
    run.store.delete(f"{PROPOSED_TASKS}/_SUCCESS")
    vandalise(run.store.backend, 0, "deleted", PROPOSED_TASKS)
    drive(run, SMALL)
    check(run, SMALL)


def test_strays_are_ignored(finished):
    artifact = finished.artifact(PROPOSED_TASKS)
    commit = artifact.get("commits/00000000.0.json")
    strays = [
        ".DS_Store",
        "0.0.json",
        "00000000.0.json.bak",
        "00000000.0 (1).json",
        "00000000.json",
        "²²²²²²²².0.json",
    ]
    for name in [*strays, "old/00000009.0.json", "00000000..void", "readme.txt"]:
        artifact.put(f"commits/{name}", commit)
    artifact.put("attempts/00000000/notes.txt", b"hello")
    artifact.put("attempts/00000000/0123-records.parquet", b"torn")
    check(finished, SMALL)
    artifact.unpublish()
    drive(finished, SMALL)
    check(finished, SMALL)


def test_a_sweep_deletes_orphans_only_and_only_after_the_grace(finished):
    artifact = finished.artifact(PROPOSED_TASKS)
    named, leases = artifact.names("attempts"), artifact.names("leases")
    artifact.put("attempts/00000000/orphan-records.parquet", b"x")
    assert sweep_artifact(artifact) == 0
    assert sweep_artifact(artifact, grace=0.0) == 1 + len(leases) > 1
    assert artifact.names("attempts") == named and artifact.names("leases") == []
    check(finished, SMALL)
    artifact.unpublish()
    artifact.put("attempts/00000000/orphan-records.parquet", b"x")
    assert sweep_artifact(artifact, grace=0.0) == 0


def test_a_sweep_keeps_all_attempts_that_lost_until_publication_is_sure(run):
    """Another driver's attempt that lost its race is an orphan, the winner's never."""
    topics, _ = plans_of(SMALL)
    artifact = run.artifact(TOPICS)
    artifact.ensure_plan(topics)
    rows = list(topics_of(SMALL))
    won = []
    for _ in range(2):
        attempt = Attempt(artifact, topics, 0, 0)
        attempt.write(RECORDS, [row.record for row in rows[:3] if row.record], TOPIC)
        attempt.write(REJECTS, [row.reject for row in rows[:3] if row.reject], REJECT)
        won.append(attempt.commit([row.row_id for row in rows[:3]], Counts(accepted=2, rejected=1, records=2)))
    assert won == [True, False]
    drive(run, SMALL)
    assert sweep_artifact(artifact, grace=0.0) == 2
    check(run, SMALL)


def test_an_attempt_that_lost_or_doubled_a_row_cannot_commit(run):
    plan = Plan("topics", rows=2, shard_rows=2)
    artifact = run.artifact(TOPICS)
    row = {"id": "a", "topic": "t", "source": ""}
    reject = driver_stage.reject("a", "", TOPICS, "bad", "", "").reject
    for records, rejects in [([row], []), ([row], [reject]), ([], [])]:
        attempt = Attempt(artifact, plan, 0, 0)
        attempt.write(RECORDS, records, TOPIC)
        attempt.write(REJECTS, rejects, REJECT)
        with pytest.raises(AssertionError, match="shard 0"):
            attempt.commit(["a", "b"], Counts())
    assert artifact.pending(plan) == [(0, 0)]


def test_another_plan_is_refused_and_the_difference_names_the_key(run):
    def planned(identity: dict[str, Any]) -> Plan:
        return Plan("tasks", rows=3, shard_rows=2, mix={"sts": 1, "a": 2}, identity=identity)

    artifact = run.artifact("tasks")
    artifact.ensure_plan(planned({"sampling": {"top_p": 1.0, "n": (1, 2)}}))
    artifact.ensure_plan(planned({"sampling": {"n": (1, 2), "top_p": 1.0}}))
    artifact.create("commits/00000000.0.json", b"{}")
    with pytest.raises(UserError, match=r"\n  identity\.sampling\.top_p: was 1\.0, now 0\.9\nUse another --run"):
        artifact.ensure_plan(planned({"sampling": {"top_p": 0.9, "n": [1, 2]}}))


def test_an_empty_plan_is_published(run):
    driver_stage.publish_rows(run.artifact(TOPICS), Plan(TOPICS, rows=0, shard_rows=4), TOPIC, iter(()))
    (verdict,) = verify(run)
    assert verdict.holds and verdict.planned == 0


def test_a_shard_that_another_driver_just_withdrew_is_waited_for(finished):
    artifact = finished.artifact(PROPOSED_TASKS)
    artifact.withdraw(next(artifact.commits()))
    assert not artifact.publish(artifact.plan())
    assert artifact.manifest() is None
    drive(finished, SMALL)
    check(finished, SMALL)


def test_the_manifest_of_a_driver_that_came_late_is_replaced(finished):
    """It checked all files, slept while one was damaged, withdrawn and made anew, and then wrote its manifest."""
    artifact = finished.artifact(PROPOSED_TASKS)
    late = artifact.get("_MANIFEST.json")
    vandalise(finished.store.backend, 0, "torn", PROPOSED_TASKS)
    repair_run(finished, verify(finished))
    drive(finished, SMALL)
    artifact.unpublish()
    artifact.create("_MANIFEST.json", late)
    assert not artifact.publish(artifact.plan()) and artifact.manifest() is None
    assert artifact.publish(artifact.plan())
    check(finished, SMALL)


def test_a_damaged_shard_is_made_again_by_credentials_that_may_not_delete(run: Run, monkeypatch) -> None:
    """Nothing was published yet, so there is nothing to delete."""
    plan = Plan(TOPICS, rows=1, shard_rows=1)
    artifact = run.artifact(TOPICS)
    artifact.ensure_plan(plan)
    attempt = Attempt(artifact, plan, 0, 0)
    attempt.write(RECORDS, [{"id": "a", "topic": "a", "source": "a"}], TOPIC)
    attempt.commit(["a"], Counts(accepted=1, records=1))
    artifact.put(attempt.files[RECORDS].path, b"")

    def refuse(path: str) -> None:
        raise AccessRefused(path)

    monkeypatch.setattr(artifact.store, "delete", refuse)
    assert not artifact.publish(plan)
    assert artifact.pending(plan) == [(0, 1)]
