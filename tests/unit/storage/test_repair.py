"""After a repair a run goes on: what was made of rows that are no more is made anew, and nothing else is."""

import contextlib
import logging

import pytest
from obstore.store import MemoryStore

from speed_ray.errors import UserError
from speed_ray.executor.stage import artifact_identity
from speed_ray.records import TASK, TOPIC, Row
from speed_ray.stages import driver_stage
from speed_ray.storage.repair import made_of, repair_run
from speed_ray.storage.run import DRAFTS, PROPOSED_TASKS, TASKS, TOPICS, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import RECORDS
from speed_ray.storage.store import ObjectStore
from speed_ray.storage.trained_models import Model
from speed_ray.storage.verify import verify
from tests.helpers.crashing_drivers import AFTER, BEFORE, LOST, Crash, Troubled

ORDER = (TOPICS, PROPOSED_TASKS, TASKS)


def publish(run: Run, name: str, word: str, **more: object) -> None:
    """Publish four rows whose text holds a word, two to a shard; a later artifact is planned on the one before."""
    place = ORDER.index(name)
    source = run.artifact(ORDER[place - 1]) if place else None
    identity = {**more, **({"input": artifact_identity(source)} if source else {})}
    plan = Plan(name, rows=4, shard_rows=2, input=source.name if source else None, identity=identity)
    schema = TASK if place else TOPIC
    driver_stage.publish_rows(
        run.artifact(name), plan, schema, (driver_stage.RowResult(row["id"], row, None) for row in rows(name, word))
    )


def rows(name: str, word: str) -> list[Row]:
    if name == TOPICS:
        return [{"id": str(number), "topic": f"{word} {number}", "source": ""} for number in range(4)]
    of_task = {"parent_id": "p", "kind": "sts", "topic": "t", "model": "m"}
    return [{"id": str(i), "row_id": str(i), "task": f"{word} {i}", **of_task} for i in range(4)]


def texts(run: Run, name: str) -> list[str]:
    return [row["task" if name != TOPICS else "topic"] for row in run.artifact(name).records()]


def damage(run: Run, name: str) -> None:
    """Damage the records of the first shard."""
    artifact = run.artifact(name)
    artifact.put(next(artifact.commits()).files[RECORDS].path, b"torn")


@pytest.fixture
def whole(run: Run) -> Run:
    """A run of three artifacts, each made of the one before."""
    for name in ORDER:
        publish(run, name, "first")
    return run


def test_what_was_made_of_rows_that_changed_is_made_anew(whole, caplog):
    damage(whole, TOPICS)
    repair_run(whole, verify(whole))
    for name in ORDER:
        publish(whole, name, "second")
    assert texts(whole, TOPICS) == ["second 0", "second 1", "first 2", "first 3"], "only the damaged shard"
    assert texts(whole, TASKS) == texts(whole, PROPOSED_TASKS) == [f"second {number}" for number in range(4)]
    assert all(verdict.holds for verdict in verify(whole))
    named = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [line.split(" was made of")[0] for line in named] == [f"memory:///{name}" for name in ORDER[1:]]


def test_what_was_made_of_rows_that_came_out_the_same_stays(whole):
    damage(whole, TOPICS)
    repair_run(whole, verify(whole))
    before = [commit.attempt for commit in whole.artifact(TASKS).commits()]
    publish(whole, TOPICS, "first")
    publish(whole, PROPOSED_TASKS, "second")
    publish(whole, TASKS, "second")
    assert texts(whole, TASKS)[0] == "first 0"
    assert [commit.attempt for commit in whole.artifact(TASKS).commits()] == before


def test_rows_that_changed_without_a_repair_are_refused_until_one_is_asked_for(whole):
    for path in whole.store.names(TOPICS):
        whole.store.delete(f"{TOPICS}/{path}")
    publish(whole, TOPICS, "second")
    with pytest.raises(UserError, match=r"identity\.input\.sha256"):
        publish(whole, PROPOSED_TASKS, "second")
    verdicts = verify(whole)
    assert verdicts[1].problems == [
        "memory:///proposed_tasks was made of topics as they were before: its job makes it anew"
    ]
    repair_run(whole, verdicts)
    publish(whole, PROPOSED_TASKS, "second")
    assert texts(whole, PROPOSED_TASKS)[0] == "second 0"


def test_another_recipe_is_refused_in_a_repaired_run_too(whole):
    damage(whole, TOPICS)
    repair_run(whole, verify(whole))
    publish(whole, TOPICS, "second")
    with pytest.raises(UserError, match=r"identity\.temperature: was None, now 0\.5"):
        publish(whole, PROPOSED_TASKS, "second", temperature=0.5)


@pytest.mark.parametrize("trouble", [BEFORE, AFTER, LOST])
def test_a_driver_may_die_anywhere_while_it_makes_rows_anew(run_on, trouble):
    def repaired() -> MemoryStore:
        backend = MemoryStore()
        run = run_on(ObjectStore(backend, "memory://"))
        publish(run, TOPICS, "first")
        publish(run, PROPOSED_TASKS, "first")
        damage(run, TOPICS)
        repair_run(run, verify(run))
        publish(run, TOPICS, "second")
        return backend

    counting = Troubled(repaired(), {})
    publish(run_on(counting), PROPOSED_TASKS, "second")
    for point in range(counting.operations):
        backend = repaired()
        with contextlib.suppress(Crash):
            publish(run_on(Troubled(backend, {point: trouble})), PROPOSED_TASKS, "second")
        clean = run_on(ObjectStore(backend, "memory://"))
        publish(clean, PROPOSED_TASKS, "second")
        assert texts(clean, PROPOSED_TASKS) == [f"second {number}" for number in range(4)]
        assert all(verdict.holds for verdict in verify(clean))


def training(rows: str, start: str | None = None, seed: int = 0) -> dict[str, object]:
    return {
        "seed": seed,
        "data": {"artifact": DRAFTS, "plan": "p", "sha256": rows},
        "start": start and {"model": "junior", "digest": start},
    }


def test_a_model_is_trained_anew_on_rows_or_weights_that_changed(run, tmp_path):
    model = Model(run, "senior")
    before = model.ensure_plan(training("rows", "weights"))
    (tmp_path / "model.safetensors").write_bytes(b"x")
    model.publish(tmp_path, {})
    with pytest.raises(UserError, match=r"data\.sha256: was 'rows', now 'others'"):
        model.ensure_plan(training("others", "weights"))
    run.store.create("_REPAIRED", b"")
    with pytest.raises(UserError, match="seed: was 0, now 1"):
        model.ensure_plan(training("others", "weights", seed=1))
    assert model.ensure_plan(training("rows", "weights")) == before and model.manifest() is not None
    after = model.ensure_plan(training("others", "new weights"))
    assert after != before and model.manifest() is None
    assert model.ensure_plan(training("others", "new weights")) == after


def test_all_that_was_made_of_an_artifact_is_named(whole):
    Model(whole, "junior").ensure_plan({"data": {"artifact": DRAFTS}, "start": None})
    whole.artifact(DRAFTS).ensure_plan(Plan(DRAFTS, rows=1, shard_rows=1, input=TASKS))
    Model(whole, "senior").ensure_plan({"data": {"artifact": "verdicts"}, "start": {"model": "junior"}})
    assert made_of(whole, [PROPOSED_TASKS]) == [TASKS, DRAFTS, "junior", "senior"]
    assert made_of(whole, ["verdicts"]) == ["senior"]
    assert made_of(whole, []) == []
