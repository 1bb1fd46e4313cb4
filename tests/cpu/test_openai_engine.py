"""The endpoint engine against real local servers: what it retries, what it refuses, what it never lets through."""

import asyncio
import email.utils
import json
import logging
import socket
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from speed_ray.engines import openai
from speed_ray.engines.budget import Spent
from speed_ray.engines.engine import EngineRefused, PromptTooLong, Reply, Request
from speed_ray.engines.openai import OpenAI
from speed_ray.engines.throttle import Throttle
from speed_ray.errors import UserError
from speed_ray.recipe import Budget, OpenAIEngine, Price

KEY = "sk-this-must-never-be-seen"
MOCK = Path(__file__).parents[2] / "benchmarks" / "mock_endpoint.py"
Answer = Callable[[dict, web.Request], Awaitable[web.StreamResponse]]


class Endpoint:
    """A server whose `answer(body, request)` each test sets; it remembers what it was sent."""

    def __init__(self) -> None:
        self.answer: Answer = good
        self.asked: list[str] = []
        self.bodies: list[dict] = []
        self.headers: list[dict] = []
        self.at_once = self.most_at_once = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body["messages"][-1]["content"])
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return await self.answer(body, request)
        finally:
            self.at_once -= 1

    def first(self, times: int, answer: Answer) -> None:
        """Give the first requests another answer, the rest a good one."""

        async def choose(body: dict, request: web.Request) -> web.StreamResponse:
            return await (answer if len(self.asked) <= times else good)(body, request)

        self.answer = choose


def completion(*texts: str | None, usage: dict | None = None, finish: str = "stop") -> web.Response:
    choices = [{"message": {"role": "assistant", "content": text}, "finish_reason": finish} for text in texts]
    return web.json_response({"choices": choices, **({"usage": usage} if usage else {})})


async def good(body: dict, request: web.Request) -> web.StreamResponse:
    return completion(
        f"answer to {body['messages'][-1]['content']}", usage={"prompt_tokens": 10, "completion_tokens": 20}
    )


def refusing(status: int, message: str = "no", code: str | None = None, **headers: str) -> Answer:
    async def answer(body: dict, request: web.Request) -> web.StreamResponse:
        error = {"error": {"message": message, "code": code}}
        return web.json_response(error, status=status, headers=headers)

    return answer


def saying(body: bytes, content_type: str = "application/json") -> Answer:
    async def answer(_: dict, request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, content_type=content_type)

    return answer


async def cut(body: dict, request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"choices": [{"message": {"content": "half of an ans')
    request.transport.abort()
    return response


async def reset(body: dict, request: web.Request) -> web.StreamResponse:
    request.transport.abort()
    return web.Response()


@pytest.fixture(autouse=True)
def impatient(monkeypatch) -> None:
    monkeypatch.setattr(openai, "FIRST_BACKOFF", 0.005)
    monkeypatch.setattr(openai, "LONGEST_BACKOFF", 0.05)
    monkeypatch.setenv("ENDPOINT_KEY", KEY)


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    endpoint = Endpoint()
    application = web.Application()
    application.router.add_post("/v1/chat/completions", endpoint.handle)
    server = TestServer(application)
    await server.start_server()
    endpoint.url = str(server.make_url("/v1"))
    endpoint.server = server
    yield endpoint
    await server.close()


@pytest.fixture
async def engine(endpoint) -> AsyncIterator[Callable[..., Awaitable[OpenAI]]]:
    """Start engines on the endpoint, and close them all."""
    started: list[OpenAI] = []

    async def start(spent: Spent | None = None, key: str = "teacher", **settings) -> OpenAI:
        settings = {"base_url": endpoint.url, "in_flight": 8, "api_key_env": "ENDPOINT_KEY", **settings}
        client = OpenAI(OpenAIEngine(engine="openai", model="m", **settings), spent or Spent(), key)
        await client.start()
        started.append(client)
        return client

    yield start
    for each in started:
        await each.close()


def prompt(text: object, **settings) -> Request:
    return Request(f"row-{text}", [{"role": "user", "content": str(text)}], **settings)


async def all_of(engine: OpenAI, rows: int, **settings) -> list[Reply | BaseException]:
    asked = (engine.generate(prompt(row, **settings)) for row in range(rows))
    return await asyncio.gather(*asked, return_exceptions=True)


def texts(replies: list[Reply | BaseException]) -> list[str]:
    return [sample.text for reply in replies if isinstance(reply, Reply) for sample in reply.samples]


def answers(rows: int) -> list[str]:
    return [f"answer to {row}" for row in range(rows)]


# What passes by itself


@pytest.mark.parametrize(
    "fault",
    [
        refusing(429),
        refusing(500),
        refusing(503),
        refusing(408),
        saying(b"<html>Bad gateway</html>", "text/html"),
        saying(b'{"error": {"message": "overloaded"}}'),
        saying(b'{"choices": []}'),
        saying(b'{"choices": [{"message": {"content": "cut'),
        saying(b'{"choices": [{"message": {"content": ["no", "text"]}}]}'),
        saying(b"[" * 100_000),
        saying(b""),
        cut,
        reset,
    ],
)
async def test_a_transient_fault_is_retried_and_never_data(endpoint, engine, fault) -> None:
    endpoint.first(5, fault)
    client = await engine()
    assert texts(await all_of(client, 4)) == answers(4)
    assert client.counters["retries"] == 5
    assert client.counters["calls"] == 4 + (5 if fault is cut else 0)  # a cut answer was probably billed


async def test_an_answer_that_takes_too_long_is_asked_again(endpoint, engine) -> None:
    async def stuck(body: dict, request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    endpoint.first(1, stuck)
    assert texts(await all_of(await engine(timeout=0.3), 1)) == answers(1)


async def test_an_endpoint_that_goes_down_is_waited_for(endpoint, engine, unused_tcp_port, caplog) -> None:
    there = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", unused_tcp_port)
    client = await engine(base_url=f"http://127.0.0.1:{unused_tcp_port}/v1")
    there.close()
    await there.wait_closed()
    asked = asyncio.create_task(client.generate(prompt(1)))
    while not client.retries:
        await asyncio.sleep(0.01)
    application = web.Application()
    application.router.add_post("/v1/chat/completions", endpoint.handle)
    late = TestServer(application, port=unused_tcp_port)
    await late.start_server()
    assert (await asked).samples[0].text == "answer to 1"
    assert "row-1" in caplog.text
    await late.close()


async def test_retry_after_is_waited_for_without_holding_a_slot(endpoint, engine) -> None:
    async def answer(body: dict, request: web.Request) -> web.StreamResponse:
        if endpoint.asked[-1] == "patient" and endpoint.asked.count("patient") == 1:
            return await refusing(429, **{"Retry-After": "1"})(body, request)
        if endpoint.asked[-1] == "hasty" and endpoint.asked.count("hasty") < 6:
            return await refusing(429)(body, request)
        return await good(body, request)

    endpoint.answer = answer
    client = await engine(in_flight=1)
    await asyncio.gather(client.generate(prompt("patient")), client.generate(prompt("hasty")))
    assert endpoint.asked == ["patient", *["hasty"] * 6, "patient"]


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("7", 7, 7),
        ("0.5", 0.5, 0.5),
        ("-3", 0, 0),
        ("nan", 0, 0),
        ("soon", 0, 0),
        (None, 0, 0),
        ("9" * 400, openai.LONGEST_RETRY_AFTER, openai.LONGEST_RETRY_AFTER),
    ],
)
def test_retry_after_is_read_as_seconds(header, least, most) -> None:
    assert least <= openai._retry_after(header) <= most
    assert openai._delay(0, openai._retry_after(header)) >= least


@pytest.mark.parametrize(("ahead", "least", "most"), [(3600, 3000, 3600), (-3600, 0, 0)])
def test_retry_after_is_read_as_a_date(ahead, least, most) -> None:
    header = email.utils.formatdate(time.time() + ahead, usegmt=True)
    assert least <= openai._retry_after(header) <= most


async def test_concurrency_falls_when_pushed_back_and_recovers_by_itself(endpoint, engine) -> None:
    async def crowded(body: dict, request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.005)
        return await (refusing(429) if endpoint.at_once > 2 else good)(body, request)

    async def roomy(body: dict, request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.005)
        return await good(body, request)

    client = await engine(in_flight=16)
    endpoint.answer = crowded
    assert texts(await all_of(client, 200)) == answers(200)
    assert client.throttle.limit < 8
    endpoint.answer, endpoint.most_at_once = roomy, 0
    assert texts(await all_of(client, 300)) == answers(300)
    assert client.throttle.limit == endpoint.most_at_once == 16


async def test_one_round_trip_of_push_back_lowers_the_limit_once(endpoint, engine) -> None:
    endpoint.first(16, refusing(429))
    client = await engine(in_flight=16)
    limits = []
    heard = client.throttle.heard

    def watched(*, pushed_back: bool) -> None:
        heard(pushed_back=pushed_back)
        limits.append(client.throttle.limit)

    client.throttle.heard = watched
    await all_of(client, 16)
    assert min(limits) == 8


async def test_most_rows_in_flight_is_the_recipes(endpoint, engine) -> None:
    async def slow(body: dict, request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.005)
        return await good(body, request)

    endpoint.answer = slow
    await all_of(await engine(in_flight=5), 50)
    assert endpoint.most_at_once == 5


async def test_cancelled_callers_leave_their_slot_to_others(endpoint, engine) -> None:
    async def slow(body: dict, request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.02)
        return await good(body, request)

    endpoint.answer = slow
    client = await engine(in_flight=2, budget=Budget(calls=100))
    asked = [asyncio.create_task(client.generate(prompt(row))) for row in range(20)]
    await asyncio.sleep(0.03)
    for task in asked[::2]:
        task.cancel()
    replies = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 20)
    assert texts(replies[1::2]) == answers(20)[1::2]
    assert texts(await all_of(client, 4)) == answers(4)


async def test_a_turn_that_comes_with_a_cancellation_goes_to_the_next() -> None:
    throttle = Throttle(1)

    async def enter() -> None:
        async with throttle:
            pass

    async with throttle:
        cancelled, after = asyncio.create_task(enter()), asyncio.create_task(enter())
        await asyncio.sleep(0)
    cancelled.cancel()  # it has just been let in and has not run since
    await asyncio.wait_for(after, 20)
    assert cancelled.cancelled() and throttle.active == 0


# What cannot pass


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        (refusing(401, "Incorrect API key"), "ENDPOINT_KEY"),
        (refusing(403, "not allowed"), "teacher.api_key_env"),
        (refusing(404, "Not Found"), "teacher.base_url"),
        (refusing(404, "The model `m` does not exist", "model_not_found"), "teacher.model"),
        (refusing(400, "The model `m` does not exist", "invalid_model"), "teacher.model"),
        (refusing(400, "response_format is not supported"), "teacher.structured"),
        (refusing(400, "temperature must be 1"), "temperature must be 1"),
        (refusing(402, "Insufficient Balance"), "credit"),
        (refusing(429, "You exceeded your current quota", "insufficient_quota"), "credit"),
        (refusing(307, "moved", Location="https://elsewhere.invalid/v1"), "teacher.base_url"),
    ],
)
async def test_a_hopeless_answer_stops_every_row_at_once(endpoint, engine, answer, names) -> None:
    endpoint.answer = answer
    ends = await all_of(await engine(in_flight=4), 50)
    assert all(isinstance(end, EngineRefused) for end in ends)
    assert len(endpoint.asked) <= 4
    assert names in str(ends[0]) and endpoint.url in str(ends[0])


async def test_a_refusal_wakes_those_that_wait_for_another_try(endpoint, engine) -> None:
    async def answer(body: dict, request: web.Request) -> web.StreamResponse:
        waits = refusing(429, **{"Retry-After": "3600"})
        return await (waits if endpoint.asked[-1] == "0" else refusing(401))(body, request)

    endpoint.answer = answer
    ends = await asyncio.wait_for(all_of(await engine(in_flight=1), 2), 20)
    assert [type(end) for end in ends] == [EngineRefused, EngineRefused]


async def test_an_endpoints_words_are_shown_short_and_without_control_characters(endpoint, engine) -> None:
    endpoint.answer = refusing(401, "\x1b[31mred\x07\u202e alert\n" + "x" * 1000)
    [end] = await all_of(await engine(), 1)
    said = str(end).partition("It said: ")[2]
    assert "red alert" in " ".join(said.split()) and said.isprintable()
    assert len(said) < 230


async def test_a_prompt_that_is_too_long_is_that_rows_fault_alone(endpoint, engine) -> None:
    async def answer(body: dict, request: web.Request) -> web.StreamResponse:
        too_long = refusing(400, "This model's maximum context length is 10 tokens.", "context_length_exceeded")
        return await (too_long if endpoint.asked[-1] == "1" else good)(body, request)

    endpoint.answer = answer
    ends = await all_of(await engine(), 3)
    assert isinstance(ends[1], PromptTooLong)
    assert texts(ends) == ["answer to 0", "answer to 2"]


async def test_a_filtered_prompt_is_an_empty_reply(endpoint, engine) -> None:
    endpoint.answer = refusing(400, "filtered", "content_filter")
    [reply] = await all_of(await engine(), 1, n=2)
    assert [(sample.text, sample.finish_reason) for sample in reply.samples] == [("", "content_filter")] * 2


async def test_a_filtered_answer_without_content_is_an_empty_reply(endpoint, engine) -> None:
    async def answer(body: dict, request: web.Request) -> web.StreamResponse:
        return completion(None, finish="content_filter")

    endpoint.answer = answer
    [reply] = await all_of(await engine(), 1)
    assert (reply.samples[0].text, reply.samples[0].finish_reason) == ("", "content_filter")


# The budget


async def test_the_budget_of_calls_is_exact_over_a_restart(endpoint, engine) -> None:
    first = await engine(budget=Budget(calls=10), in_flight=64)
    assert len(texts(await all_of(first, 7))) == 7
    second = await engine(spent=first.spent, budget=Budget(calls=10), in_flight=64)
    ends = await all_of(second, 50)
    assert len(texts(ends)) == 3
    assert len(endpoint.asked) == 10
    refused = [end for end in ends if isinstance(end, EngineRefused)]
    assert len(refused) == 47
    assert "teacher.budget.calls" in str(refused[0]) and "10 of 10" in str(refused[0])


async def test_faults_that_nobody_bills_leave_the_budget_alone(endpoint, engine) -> None:
    endpoint.first(20, refusing(500))
    assert texts(await all_of(await engine(budget=Budget(calls=5)), 5)) == answers(5)


@pytest.mark.parametrize("budget", [Budget(tokens=2000), Budget(dollars=0.01)])
async def test_tokens_and_dollars_never_pass_the_budget_and_nearly_reach_it(endpoint, engine, budget) -> None:
    price = Price(input=2.0, output=8.0)  # 0.00018 dollars for the 10 + 20 tokens of a good answer
    client = await engine(budget=budget, price=price, in_flight=64)
    ends = await all_of(client, 200, max_tokens=100)
    calls = len(endpoint.asked)
    assert isinstance(ends[-1], EngineRefused)
    assert calls == len(texts(ends))
    most, each, bound = (2000, 30, 117) if budget.tokens else (0.01, 0.00018, 0.00084)
    assert most - bound <= calls * each <= most


async def test_answers_lost_on_the_way_count_against_the_budget(endpoint, engine) -> None:
    endpoint.answer = cut
    [end] = await all_of(await engine(budget=Budget(calls=3)), 1)
    assert isinstance(end, EngineRefused)
    assert len(endpoint.asked) == 3


async def test_a_budget_in_tokens_holds_without_usage(endpoint, engine) -> None:
    async def answer(body: dict, request: web.Request) -> web.StreamResponse:
        return completion("text")

    endpoint.answer = answer
    await all_of(await engine(budget=Budget(tokens=1000)), 50, max_tokens=100)
    assert 1 <= len(endpoint.asked) <= 1000 // 100


async def test_dollars_need_a_price(engine) -> None:
    with pytest.raises(UserError, match=r"generator\.price"):
        await engine(budget=Budget(dollars=1.0), key="generator")


# What is sent and what is read


async def test_a_request_carries_all_that_decides_its_answer(endpoint, engine) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    settings = {"temperature": 0.5, "top_p": 0.9, "max_tokens": 77, "seed": 123, "schema": schema}
    await all_of(await engine(), 1, **settings)
    await all_of(await engine(structured=False), 1, **settings)
    structured, plain = endpoint.bodies
    assert structured.pop("response_format")["json_schema"]["schema"] == schema
    settings.pop("schema")
    assert structured == plain == {"model": "m", "messages": [{"role": "user", "content": "0"}], **settings}
    assert endpoint.headers[0]["Authorization"] == f"Bearer {KEY}"


async def test_n_samples_come_from_one_call(endpoint, engine) -> None:
    async def answer(body: dict, request: web.Request) -> web.StreamResponse:
        return completion(*"abcd"[: body["n"]], usage={"prompt_tokens": 10, "completion_tokens": 42})

    endpoint.answer = answer
    [reply] = await all_of(await engine(), 1, n=4)
    assert [sample.text for sample in reply.samples] == list("abcd")
    assert sum(sample.output_tokens for sample in reply.samples) == 42
    assert len(endpoint.asked) == 1


async def test_an_endpoint_that_ignores_n_is_asked_again_with_other_seeds(endpoint, engine) -> None:
    [reply] = await all_of(await engine(), 1, n=3, seed=100)
    assert len(reply.samples) == 3
    assert [body["seed"] for body in endpoint.bodies] == [100, 101, 102]


async def test_the_newer_name_of_max_tokens_is_learnt(endpoint, engine) -> None:
    async def answer(body: dict, request: web.Request) -> web.StreamResponse:
        message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
        return await (refusing(400, message) if "max_tokens" in body else good)(body, request)

    endpoint.answer = answer
    client = await engine(in_flight=1)
    assert texts(await all_of(client, 5)) == answers(5)
    assert ["max_tokens" in body for body in endpoint.bodies] == [True] + [False] * 5


async def test_missing_usage_counts_as_nothing_and_is_said_once(endpoint, engine, caplog) -> None:
    async def answer(body: dict, request: web.Request) -> web.StreamResponse:
        return completion("text")

    endpoint.answer = answer
    replies = await all_of(await engine(), 5)
    assert [(reply.prompt_tokens, reply.samples[0].output_tokens) for reply in replies] == [(0, 0)] * 5
    assert caplog.text.count("how many tokens") == 1


async def test_half_an_emoji_is_read_and_not_paid_for_again(endpoint, engine) -> None:
    endpoint.answer = saying(b'{"choices": [{"message": {"content": "a \\ud83d b"}, "finish_reason": "stop"}]}')
    [reply] = await all_of(await engine(), 1)
    assert reply.samples[0].text == "a \ufffd b"
    assert len(endpoint.asked) == 1


async def test_counters_add_up(endpoint, engine) -> None:
    client = await engine(spent=Spent(5, 500, 500), price=Price(input=1.0, output=10.0))
    endpoint.first(2, refusing(500))
    await all_of(client, 4)
    assert client.counters == {
        "calls": 4,
        "retries": 2,
        "prompt_tokens": 40,
        "output_tokens": 80,
        "dollars": pytest.approx((40 * 1 + 80 * 10) / 1e6),
    }
    assert client.spent == Spent(9, 540, 580)


# The key and the log


@pytest.mark.parametrize("status", [401, 404, 400, 500])
async def test_the_key_never_shows_even_when_the_endpoint_repeats_it(endpoint, engine, caplog, status) -> None:
    caplog.set_level(logging.DEBUG)
    endpoint.first(3, refusing(status, f"bad key {KEY} in Bearer {KEY}"))
    ends = await all_of(await engine(in_flight=1), 3)
    traces = "".join("".join(traceback.format_exception(end)) for end in ends if isinstance(end, BaseException))
    assert endpoint.asked
    assert KEY not in caplog.text + traces + repr(ends)
    assert "[key]" in caplog.text + traces


async def test_the_key_follows_no_redirect(endpoint, engine) -> None:
    elsewhere = Endpoint()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", elsewhere.handle)
    other = TestServer(application)
    await other.start_server()
    endpoint.answer = refusing(307, Location=str(other.make_url("/v1/chat/completions")))
    await all_of(await engine(), 1)
    assert elsewhere.headers == []
    await other.close()


@pytest.mark.parametrize(
    ("variable", "base_url"),
    [
        ("", "http://127.0.0.1/v1"),
        ("schlüssel", "http://127.0.0.1/v1"),
        (KEY, f"http://user:{KEY}@127.0.0.1/v1"),
        (KEY, f"http://127.0.0.1/v1?key={KEY}"),
        (KEY, "127.0.0.1/v1"),
    ],
)
async def test_a_wrong_key_or_address_is_the_users_error(engine, monkeypatch, variable, base_url) -> None:
    monkeypatch.setenv("ENDPOINT_KEY", variable)
    with pytest.raises(UserError) as caught:
        await engine(base_url=base_url)
    assert KEY not in str(caught.value)


async def test_waiting_is_reported_in_turn_and_not_for_every_fault(endpoint, engine, monkeypatch, caplog) -> None:
    monkeypatch.setattr(openai, "REPORT_EVERY", 0.3)
    endpoint.answer = refusing(503, "warming up")
    client = await engine()
    asked = [asyncio.create_task(client.generate(prompt(row))) for row in range(8)]
    while len(caplog.records) < 4:
        await asyncio.sleep(0.01)
    assert client.retries > 2 * len(caplog.records)
    assert "warming up" in caplog.text and "8 requests wait" in caplog.text
    for task in asked:
        task.cancel()


async def test_silence_is_reported(endpoint, engine, monkeypatch, caplog) -> None:
    async def silent(body: dict, request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    monkeypatch.setattr(openai, "REPORT_EVERY", 0.05)
    endpoint.answer = silent
    asked = asyncio.create_task((await engine()).generate(prompt(1)))
    while "1 requests wait" not in caplog.text:
        await asyncio.sleep(0.01)
    asked.cancel()


async def test_every_row_finishes_once_among_many_faults(engine) -> None:
    shares = ["--share-429", "0.1", "--share-500", "0.02", "--share-drop", "0.01", "--share-html", "0.01"]
    command = [sys.executable, str(MOCK), "--latency-ms", "2", *shares]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as mock:
        try:
            url = mock.stdout.readline().strip()
            ends = await all_of(await engine(base_url=url, in_flight=64), 1000)
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"{url}/stats?prompts=1".replace("/v1", "")) as got,
            ):
                stats = json.loads(await got.read())
        finally:
            mock.kill()
    assert len(texts(ends)) == 1000
    assert not any("html" in text or "mock answers" in text for text in texts(ends))
    assert Counter(answered for _, answered in stats["prompts"].values()) == {1: 1000}
    assert stats["outcomes"]["429"] > 50 and stats["outcomes"]["500"] > 5
    assert stats["most_in_flight"] <= 64


async def test_an_address_where_nobody_is_ends_the_start_with_the_key_to_correct() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    engine = OpenAI(OpenAIEngine(engine="openai", model="m", base_url=f"http://127.0.0.1:{port}/v1"), Spent())
    with pytest.raises(UserError, match=r"teacher\.base_url: nobody answers"):
        await engine.start()
