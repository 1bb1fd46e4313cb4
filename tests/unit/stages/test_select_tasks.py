"""A few tasks for each topic and kind are kept, none of them near another, and every other proposal says why not."""

import re
from collections import Counter
from collections.abc import Callable
from itertools import combinations, pairwise

import pytest
from obstore.store import MemoryStore

from speed_ray import recipes
from speed_ray.records import TASK, Row, content_id
from speed_ray.stages import driver_stage
from speed_ray.stages.select_tasks import TaskDeduplicator, select_tasks
from speed_ray.storage.run import PROPOSED_TASKS, TASKS, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import RECORDS, REJECTS
from speed_ray.storage.store import ObjectStore
from speed_ray.storage.verify import verify
from tests.helpers.paths import SHARED

TOPICS_FILE = SHARED / "data" / "topics.txt"

Proposal = tuple[str, str, str]  # topic, kind, task


def propose(run: Run, proposals: list[Proposal]) -> None:
    """Publish proposed tasks as a stage before would."""

    def row(number: int, topic: str, kind: str, task: str) -> Row:
        names = {"id": f"{number:04d}", "row_id": f"r{number}", "parent_id": content_id(topic)}
        return {**names, "kind": kind, "topic": topic, "task": task, "model": "m"}

    rows = (row(number, *proposal) for number, proposal in enumerate(proposals))
    plan = Plan(PROPOSED_TASKS, rows=len(proposals), shard_rows=3)
    driver_stage.publish_rows(
        run.artifact(PROPOSED_TASKS), plan, TASK, (driver_stage.RowResult(row["id"], row, None) for row in rows)
    )


def selected(run: Run, proposals: list[Proposal], *overrides: str) -> tuple[list[Row], list[Row]]:
    """Select. Returns the tasks and the rejects."""
    propose(run, proposals)
    artifact = select_tasks(run, recipes.load_recipe("miniature", overrides))
    files = [commit.files for commit in artifact.commits()]
    return tuple([r for f in files if role in f for r in artifact.read(f[role].path).to_pylist()]
                 for role in (RECORDS, REJECTS))  # fmt: skip


MANY = [
    (topic, kind, f"{verb} {kind} about {topic} for number {n}, {topic} {verb}")
    for topic in ("music", "physics")
    for kind in ("retrieval", "classification")
    for n, verb in enumerate(("find", "sort the", "look into", "tell apart all"))
]


@pytest.mark.parametrize("keep", [1, 2, 9])
def test_at_most_keep_tasks_for_a_topic_and_kind(run, keep):
    tasks, rejects = selected(run, MANY, f"brainstorm.tasks_per_topic={keep}")
    assert Counter((row["topic"], row["kind"]) for row in tasks) == dict.fromkeys(
        {proposal[:2] for proposal in MANY}, min(keep, 4)
    )
    assert {row["reason"] for row in rejects} <= {"surplus"}
    assert len(tasks) + len(rejects) == len(MANY)
    assert all(verdict.holds for verdict in verify(run))


def test_a_near_duplicate_of_another_topic_is_dropped_and_named(run):
    same = "Given a song title, find the album that it was first released on"
    tasks, rejects = selected(
        run,
        [
            ("music", "retrieval", same),
            ("albums", "retrieval", f"{same.upper()}!"),
            ("songs", "classification", same),
            ("tunes", "retrieval", "Given a tune, find out who wrote it and when"),
        ],
    )
    assert [row["topic"] for row in tasks] == ["music", "songs", "tunes"]
    (reject,) = rejects
    assert (reject["reason"], reject["detail"], reject["kind"]) == ("near_duplicate", f"repeats: {same}", "retrieval")
    assert reject["text"] == f"{same.upper()}!"


def test_a_topic_whose_first_proposal_repeats_keeps_its_second(run):
    tasks, rejects = selected(
        run,
        [
            ("a", "retrieval", "find the recipe for a cake of this kind"),
            ("b", "retrieval", "find the recipe for a cake of this kind"),
            ("b", "retrieval", "name an oven that bakes bread without steam"),
        ],
    )
    assert [row["id"] for row in tasks] == ["0000", "0002"]
    assert [row["reason"] for row in rejects] == ["near_duplicate"]


def test_kinds_with_a_fixed_instruction_are_never_duplicates(run):
    fixed = "Retrieve semantically similar text"
    tasks, rejects = selected(run, [(topic, "sts", fixed) for topic in "abcde"])
    assert len(tasks) == 5 and not rejects


def test_tasks_without_a_word_are_one_task(run):
    tasks, rejects = selected(run, [("a", "retrieval", "???"), ("b", "retrieval", "..."), ("c", "retrieval", "one")])
    assert [row["topic"] for row in tasks] == ["a", "c"]
    assert [row["reason"] for row in rejects] == ["near_duplicate"]


def test_tasks_that_differ_in_vowel_signs_are_two(run):
    tasks, _ = selected(run, [("a", "retrieval", "किताब खोजो"), ("b", "retrieval", "कतब खोज")])
    assert len(tasks) == 2


def test_a_near_duplicate_is_found_in_a_script_without_spaces(run):
    same = "根据租房者的问题，查找说明押金退还规定的合同条款"
    tasks, _ = selected(run, [("a", "retrieval", same), ("b", "retrieval", f"{same}，并解释原因")])
    assert len(tasks) == 1


def test_selecting_again_gives_the_same_bytes(run_on: Callable[..., Run]):
    digests = []
    for _ in range(2):
        run = run_on(ObjectStore(MemoryStore(), "memory://"))
        selected(run, [(f"t{n}", "retrieval", f"find book number {n % 7} on shelf {n % 3} here") for n in range(60)])
        shards = run.artifact(TASKS).manifest()["shards"]
        digests.append([entry["sha256"] for shard in shards for entry in shard["files"].values()])
    assert digests[0] == digests[1]


def test_no_proposal_gives_an_empty_publication(run):
    tasks, rejects = selected(run, [])
    assert tasks == rejects == [] and run.artifact(TASKS).manifest()["planned"] == 0


def similarity(one: str, other: str) -> float:
    """The Jaccard of word pairs, said again."""
    first, second = (set(pairwise(re.findall(r"\w+", task.casefold()))) for task in (one, other))
    return len(first & second) / len(first | second)


@pytest.mark.skipif(not TOPICS_FILE.exists(), reason="the list of real topics is not beside this checkout")
def test_among_real_topics_nothing_kept_is_near_and_everything_dropped_is():
    seen, dropped = TaskDeduplicator(0.7), []
    lines = TOPICS_FILE.read_text().splitlines()[:300]
    for line in lines:
        for form in ("Given a question about {}, find the passage that answers it", "Find what experts of {} write"):
            task = form.format(line.replace("/", " "))
            if other := seen.find(task):
                dropped.append((task, other))
            else:
                seen.add(task)
    assert len(dropped) > 50 and len(seen.tasks) > 50
    assert all(similarity(*pair) >= 0.7 for pair in dropped)
    near = sum(similarity(*pair) >= 0.7 for pair in combinations(seen.tasks, 2))
    assert near <= 0.01 * len(seen.tasks), "32 bands of 4 rows find 99.98% of the pairs at 0.7"
