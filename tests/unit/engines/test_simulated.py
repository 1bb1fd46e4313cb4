"""The simulated engine: its time follows the documented formula, its texts parse, its faults come as ordered."""

import asyncio
import random

import pytest

from speed_ray import kinds
from speed_ray.engines.base import EngineDead, Request
from speed_ray.engines.simulated import DEATHS, Simulated
from speed_ray.errors import UserError
from speed_ray.prompts.parse import parse_example, parse_tasks, tasks_schema
from speed_ray.recipes.engine_settings import Faults, SimulatedEngine
from speed_ray.records import Rejected

INSTANT = {"prefill": 1e12, "decode": 1e12, "max_tokens_per_stream": 1e12}


class ImaginedTime(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        select = self._selector.select
        self._selector.select = lambda timeout=None: self._jump(timeout) or select(0)

    def time(self) -> float:
        return self.now

    def _jump(self, timeout: float | None) -> None:
        assert timeout is not None, "everything waits and no timer is set"
        self.now += timeout


def config(**settings) -> SimulatedEngine:
    return SimulatedEngine(engine="simulated", **settings)


def prompt(seed: int, tokens: int = 100, **settings) -> Request:
    return Request(f"row{seed}", [{"role": "user", "content": "abcd" * tokens}], seed=seed, **settings)


def seconds(engine_config: SimulatedEngine, requests: list[Request]) -> list[float]:
    """Answer all requests at once, in imagined time."""

    async def answer() -> list[float]:
        engine = Simulated(engine_config)
        await engine.start()
        replies = await asyncio.gather(*map(engine.generate, requests))
        return [reply.seconds for reply in replies]

    with asyncio.Runner(loop_factory=ImaginedTime) as runner:
        return runner.run(answer())


async def started(**settings) -> Simulated:
    engine = Simulated(config(**INSTANT, **settings))
    await engine.start()
    return engine


def test_one_request_takes_prefill_plus_its_own_stream() -> None:
    taken = seconds(
        config(prefill=1000, decode=400, max_tokens_per_stream=100, output_tokens=200), [prompt(0, tokens=500)]
    )
    assert taken == pytest.approx([500 / 1000 + 200 / 100], rel=0.01)


def test_many_requests_share_the_decode_rate() -> None:
    taken = seconds(
        config(prefill=1e9, decode=400, max_tokens_per_stream=100, output_tokens=200),
        [prompt(i, tokens=1) for i in range(16)],
    )
    assert taken == pytest.approx([16 * 200 / 400] * 16, rel=0.01)


def test_few_requests_do_not_slow_each_other() -> None:
    taken = seconds(
        config(prefill=1e9, decode=400, max_tokens_per_stream=100, output_tokens=200),
        [prompt(i, tokens=1) for i in range(4)],
    )
    assert taken == pytest.approx([200 / 100] * 4, rel=0.01)


def test_prompts_are_read_one_after_another() -> None:
    taken = seconds(
        config(prefill=100, decode=1e12, max_tokens_per_stream=1e12), [prompt(i, tokens=50) for i in range(4)]
    )
    assert taken == pytest.approx([0.5, 1.0, 1.5, 2.0], rel=0.01)


def test_beyond_in_flight_requests_wait() -> None:
    taken = seconds(
        config(prefill=1e9, decode=200, max_tokens_per_stream=100, output_tokens=100, max_concurrency=2),
        [prompt(i, tokens=1) for i in range(6)],
    )
    assert taken == pytest.approx([1, 1, 2, 2, 3, 3], rel=0.01)


def test_a_request_that_ends_gives_its_rate_to_the_others() -> None:
    settings = config(prefill=1e9, decode=100, max_tokens_per_stream=100, output_tokens=300)
    taken = seconds(settings, [prompt(0, tokens=1, max_tokens=100), prompt(1, tokens=1, max_tokens=300)])
    assert taken == pytest.approx([100 / 50, 100 / 50 + 200 / 100], rel=0.01)


def test_every_sample_is_a_stream() -> None:
    settings = config(prefill=1e9, decode=100, max_tokens_per_stream=100, output_tokens=100)
    assert seconds(settings, [prompt(0, tokens=1, n=4)]) == pytest.approx([4.0], rel=0.01)


def test_answers_differ_in_length_as_asked_and_a_row_has_the_same_each_time() -> None:
    settings = config(prefill=1e9, decode=1e9, max_tokens_per_stream=100, output_tokens=300, spread=0.5)
    taken = seconds(settings, [prompt(i, tokens=1) for i in range(200)])
    assert min(taken) >= 1.5 and max(taken) <= 4.51
    assert max(taken) - min(taken) > 2
    assert sum(taken) / 200 == pytest.approx(3, rel=0.1)
    assert seconds(settings, [prompt(i, tokens=1) for i in range(200)]) == taken


async def test_what_was_decoded_is_noted_with_its_time(tmp_path) -> None:
    engine = Simulated(
        config(prefill=1e9, decode=1e5, max_tokens_per_stream=1e5, output_tokens=50, utilization_log=str(tmp_path))
    )
    await engine.start()
    await asyncio.gather(*(engine.generate(prompt(seed)) for seed in range(100)))
    await asyncio.sleep(1.1)
    (noted,) = (file.read_text().splitlines() for file in tmp_path.iterdir())
    (_, first), *_, (_, last) = (map(float, line.split()) for line in noted)
    assert first == 0 and last == pytest.approx(5000, rel=0.01)


def test_high_rates_set_no_timer() -> None:
    assert seconds(config(**INSTANT), [prompt(i) for i in range(1000)]) == [0.0] * 1000


async def test_answers_without_a_wait_still_let_others_run() -> None:
    engine = await started()
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    beside = asyncio.create_task(other())
    for seed in range(1000):
        await engine.generate(prompt(seed))
    beside.cancel()
    assert turns > 5


@pytest.mark.parametrize("name", ["classification", "sts", "retrieval", "matching_short", "matching_long"])
async def test_examples_pass_their_kinds_checks(name: str) -> None:
    engine, kind = await started(), kinds.load_kind(name)
    for seed in range(300):
        slots = kind.slots(random.Random(seed))
        reply = await engine.generate(prompt(seed, schema=kind.schema, context={"slots": slots}))
        parse_example(reply.samples[0].text, kind, slots, "English")


async def test_tasks_are_as_many_as_asked_and_mention_the_topic() -> None:
    engine = await started()
    request = prompt(3, schema=tasks_schema(5), context={"topic": "Arts/Movies", "ask": 5})
    proposed = parse_tasks((await engine.generate(request)).samples[0].text, 5, request.messages)
    assert len(set(proposed)) == 5
    assert all("Arts/Movies" in task for task in proposed)


async def test_the_seed_decides_the_text() -> None:
    schema = kinds.load_kind("retrieval").schema
    engines = [await started(), await started()]
    texts = [
        [(await engine.generate(prompt(seed, schema=schema, n=2))).samples for seed in range(500)]
        for engine in engines
    ]
    assert texts[0] == texts[1]
    assert len({sample.text for samples in texts[0] for sample in samples}) == 1000


async def test_malformed_replies_come_in_their_share_and_recur() -> None:
    kind = kinds.load_kind("sts")
    slots = kind.slots(random.Random(0))

    async def malformed() -> set[int]:
        engine, found = await started(faults=Faults(malformed=0.3)), set()
        for seed in range(1000):
            reply = await engine.generate(prompt(seed, schema=kind.schema, context={"slots": slots}))
            try:
                parse_example(reply.samples[0].text, kind, slots, "English")
            except Rejected:
                found.add(seed)
        return found

    first = await malformed()
    assert 240 < len(first) < 360
    assert await malformed() == first


async def test_a_row_kills_its_engine_once_and_no_more(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(DEATHS, str(tmp_path / "deaths"))
    rows, deaths, answered = 200, 0, set()
    while len(answered) < rows:
        engine = await started(faults=Faults(die=0.1))
        try:
            for seed in range(rows):
                await engine.generate(prompt(seed))
                answered.add(seed)
        except EngineDead:
            deaths += 1
            assert deaths < rows
    assert 5 < deaths < 45
    assert len(list((tmp_path / "deaths").iterdir())) == deaths


async def test_a_dying_engine_takes_all_in_flight_along_and_stays_dead(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(DEATHS, str(tmp_path))
    engine = Simulated(
        config(prefill=1e9, decode=1e4, max_tokens_per_stream=1e4, output_tokens=400, faults=Faults(die=1.0))
    )
    await engine.start()
    asked = [prompt(0, max_tokens=10), *(prompt(seed) for seed in range(1, 20))]
    ends = await asyncio.gather(*map(engine.generate, asked), return_exceptions=True)
    assert all(isinstance(end, EngineDead) for end in ends)
    assert [mark.name for mark in tmp_path.iterdir()] == ["row0"]  # the others died with it, not of themselves
    with pytest.raises(EngineDead):
        await engine.generate(prompt(5000))


async def test_deaths_need_a_place_to_be_marked(monkeypatch) -> None:
    monkeypatch.delenv(DEATHS, raising=False)
    with pytest.raises(UserError, match=DEATHS):
        await started(faults=Faults(die=0.1))


async def test_hanging_requests_never_answer_and_the_others_do() -> None:
    engine = await started(faults=Faults(hang=0.3))
    asked = [asyncio.create_task(engine.generate(prompt(seed))) for seed in range(200)]
    answered, hanging = await asyncio.wait(asked, timeout=1)
    assert 30 < len(hanging) < 90
    assert all(task.exception() is None for task in answered)
    for task in hanging:
        task.cancel()


async def logprobs(text: str, wanted: str, seed: int = 0) -> list[dict]:
    engine = await started()
    reply = await engine.generate(Request("row", [{"role": "user", "content": text}], seed=seed, logprobs=wanted))
    return reply.samples[0].logprobs


async def test_a_word_of_a_prompt_has_one_logprob_wherever_it_stands() -> None:
    first, second = await logprobs("a hive of bees", "prompt", seed=1), await logprobs("many bees", "prompt", seed=2)
    assert [each["token"] for each in first] == ["hive", "of", "bees"]
    assert first[-1] == second[-1] and len({each["logprob"] for each in first}) == 3


async def test_yes_and_no_as_a_first_token_are_told_by_the_prompt_alone() -> None:
    said = await logprobs("Do bees sleep?", "first_token", seed=1)
    assert [each["token"] for each in said] == ["Yes", "No"]
    assert said == await logprobs("Do bees sleep?", "first_token", seed=2) != await logprobs("Do ants?", "first_token")
