"""Exactly-once, however the work is killed: every operation on the store is a place where a driver can die."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from obstore.store import MemoryStore

from speed_ray.errors import Interrupted, UserError
from speed_ray.executor.early_stop import EarlyStop
from speed_ray.records import REJECT, TOPIC, content_id
from speed_ray.stages import driver_stage
from speed_ray.storage.attempt import Attempt
from speed_ray.storage.repair import repair_run
from speed_ray.storage.run import PROPOSED_TASKS, TOPICS, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import RECORDS, REJECTS, Counts
from speed_ray.storage.store import AccessRefused, ObjectStore
from speed_ray.storage.verify import verify
from tests.helpers.crashing_drivers import AFTER, BEFORE, LOST, Crash, Troubled, Turn, interleave
from tests.helpers.small_worlds import SMALL, WORLDS, check, drive

TROUBLES = st.dictionaries(st.integers(0, 80), st.sampled_from([BEFORE, AFTER, LOST]), max_size=3)


@pytest.fixture(autouse=True)
def no_early_stop(monkeypatch):
    """A world may reject all of its rows."""
    monkeypatch.setattr(EarlyStop, "_add", lambda self, change: None)


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

    artifact, first = run.artifact("tasks"), planned({"sampling": {"top_p": 1.0, "n": (1, 2)}})
    artifact.ensure_plan(first)
    artifact.ensure_plan(planned({"sampling": {"n": (1, 2), "top_p": 1.0}}))
    assert Attempt(artifact, first, 0, 0).commit([], Counts(accepted=1))
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
