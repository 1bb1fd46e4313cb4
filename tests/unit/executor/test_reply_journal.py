"""A reply that was journalled comes back as it was, from any attempt, and a damaged file is as good as none."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from obstore.store import MemoryStore

from speed_ray.engines.base import Reply, Sample
from speed_ray.executor.reply_journal import EVERY, Journal, forget_replies, replay
from speed_ray.storage.shards import Artifact
from speed_ray.storage.store import ObjectStore

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=20)  # lone surrogates and newlines included
LOGPROBS = st.lists(st.fixed_dictionaries({"token": ANY_TEXT, "logprob": st.floats(-99, 0)}), max_size=3)
SAMPLES = st.lists(
    st.builds(
        Sample,
        text=ANY_TEXT,
        finish_reason=st.sampled_from(["stop", "length"]),
        output_tokens=st.integers(0),
        logprobs=LOGPROBS,
    ),
    min_size=1,
    max_size=3,
)
REPLIES = st.builds(Reply, samples=SAMPLES, prompt_tokens=st.integers(0, 9999), seconds=st.floats(0, 1e6))


@pytest.fixture
def artifact() -> Artifact:
    return Artifact(ObjectStore(MemoryStore(), "memory://"), "tasks")


def reply(text: str = "text") -> Reply:
    return Reply([Sample(text, "stop", 1)], prompt_tokens=1, seconds=0.5)


def journal(
    artifact: Artifact, attempt: str, shard: int, answers: dict[tuple[str, int], Reply], plan: str = "plan"
) -> Journal:
    """Add replies and store them all."""

    async def add() -> Journal:
        made = Journal(artifact, shard, attempt, plan)
        await asyncio.gather(*(made.add(*key, answer) for key, answer in answers.items()))
        await made.flush()
        return made

    return asyncio.run(add())


@given(st.dictionaries(st.tuples(st.uuids().map(str), st.integers(0, 3)), REPLIES, max_size=40))
def test_what_was_added_comes_back_as_it_was(answers):
    artifact = Artifact(ObjectStore(MemoryStore(), "memory://"), "tasks")
    journal(artifact, "a", 0, answers)
    assert replay(artifact, 0) == answers


def test_replies_are_stored_as_soon_as_a_batch_is_full(artifact):
    async def add(count: int) -> None:
        made = Journal(artifact, 3, "a", "plan")
        for number in range(count):
            await made.add(f"row{number}", 0, reply())

    asyncio.run(add(2 * EVERY + 1))
    assert len(replay(artifact, 3)) == 2 * EVERY


def test_attempts_add_up_and_shards_stay_apart(artifact):
    journal(artifact, "a", 0, {("x", 0): reply("one"), ("y", 0): reply("two")})
    journal(artifact, "b", 0, {("z", 1): reply("three")})
    journal(artifact, "c", 1, {("w", 0): reply("four")})
    assert {key: value.samples[0].text for key, value in replay(artifact, 0).items()} == {
        ("x", 0): "one", ("y", 0): "two", ("z", 1): "three"
    }  # fmt: skip
    assert set(replay(artifact, 1)) == {("w", 0)}
    assert replay(artifact, 2) == {}


def test_nothing_waiting_writes_nothing(artifact):
    journal(artifact, "a", 0, {})
    assert artifact.names("attempts") == []


def test_every_torn_or_flipped_file_counts_as_not_there(artifact):
    journal(artifact, "a", 0, {("x", 0): reply("one")})
    journal(artifact, "b", 0, {("y", 0): reply("two")})
    path = "attempts/00000000/a-journal-1.jsonl"
    data = artifact.get(path)
    for place in range(0, len(data), 3):
        for damaged in (data[:place], data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]):
            artifact.put(path, damaged)
            assert set(replay(artifact, 0)) == {("y", 0)}
    artifact.put(path, data)
    assert set(replay(artifact, 0)) == {("x", 0), ("y", 0)}


def test_data_files_beside_a_journal_are_not_read_as_one(artifact):
    artifact.put("attempts/00000000/a-replies.parquet", b"PAR1")
    assert replay(artifact, 0) == {}


def test_a_reply_answers_no_other_plans_prompt(artifact):
    """A row's id says nothing of its prompt; what was paid is counted whatever the plan."""
    journal(artifact, "a", 0, {("x", 0): reply("old prompts")}, plan="old")
    journal(artifact, "b", 0, {("y", 0): reply("new prompts")}, plan="new")
    assert set(replay(artifact, 0, "new")) == {("y", 0)}
    assert set(replay(artifact, 0)) == {("x", 0), ("y", 0)}


def test_replies_to_some_rows_are_forgotten_and_no_others(artifact):
    journal(artifact, "a", 0, {("x", 0): reply("one"), ("x", 1): reply("two"), ("y", 0): reply("three")})
    journal(artifact, "b", 0, {("x", 2): reply("four")})
    journal(artifact, "c", 0, {("z", 0): reply("five")})
    forget_replies(artifact, 0, {"x"})
    assert set(replay(artifact, 0)) == {("y", 0), ("z", 0)}
    assert len(artifact.names("attempts")) == 2
