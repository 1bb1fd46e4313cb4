"""The endpoint engine against real local servers: what it sends and reads, what it retries, what it refuses."""

import asyncio
import socket
from collections import Counter

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from speed_ray.engines import openai
from speed_ray.engines.base import FatalEngineError, PromptTooLong
from speed_ray.engines.openai import OpenAI
from speed_ray.errors import UserError
from speed_ray.recipes.engine_settings import OpenAIEngine
from speed_ray.storage.store import LocalFolder
from tests.helpers.ledgers import ledger_of
from tests.helpers.tiny_endpoint import (
    KEY,
    all_of,
    answers,
    asked,
    completion,
    cut,
    good,
    mock,
    prompt,
    refusing,
    reset,
    saying,
    texts,
)

# What is sent and what is read


async def test_a_request_carries_all_that_decides_its_answer(endpoint, connect) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    settings = {"temperature": 0.5, "top_p": 0.9, "max_tokens": 77, "seed": 123, "schema": schema}
    await all_of(await connect(), 1, **settings)
    await all_of(await connect(structured_outputs=False), 1, **settings)
    structured, plain = endpoint.bodies
    assert structured.pop("response_format")["json_schema"]["schema"] == schema
    settings.pop("schema")
    assert structured == plain == {"model": "m", "messages": [{"role": "user", "content": "0"}], **settings}
    assert endpoint.headers[0]["Authorization"] == f"Bearer {KEY}"


async def test_n_samples_come_from_one_call(endpoint, connect) -> None:
    async def answer(body: dict, request: web.Request) -> web.StreamResponse:
        return completion(*"abcd"[: body["n"]], usage={"prompt_tokens": 10, "completion_tokens": 42})

    endpoint.answer = answer
    [reply] = await all_of(await connect(), 1, n=4)
    assert [sample.text for sample in reply.samples] == list("abcd")
    assert sum(sample.output_tokens for sample in reply.samples) == 42
    assert len(endpoint.asked) == 1


async def test_an_endpoint_that_ignores_n_is_asked_again_with_other_seeds(endpoint, connect) -> None:
    [reply] = await all_of(await connect(), 1, n=3, seed=100)
    assert len(reply.samples) == 3
    assert [body["seed"] for body in endpoint.bodies] == [100, 101, 102]


async def test_the_newer_name_of_max_tokens_is_learnt(endpoint, connect) -> None:
    async def answer(body: dict, request: web.Request) -> web.StreamResponse:
        message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
        return await (refusing(400, message) if "max_tokens" in body else good)(body, request)

    endpoint.answer = answer
    client = await connect(max_concurrency=1)
    assert texts(await all_of(client, 5)) == answers(5)
    assert ["max_tokens" in body for body in endpoint.bodies] == [True] + [False] * 5


async def test_missing_usage_counts_as_nothing_and_is_said_once(endpoint, connect, caplog) -> None:
    async def answer(body: dict, request: web.Request) -> web.StreamResponse:
        return completion("text")

    endpoint.answer = answer
    replies = await all_of(await connect(), 5)
    assert [(reply.prompt_tokens, reply.samples[0].output_tokens) for reply in replies] == [(0, 0)] * 5
    assert caplog.text.count("how many tokens") == 1


async def test_half_an_emoji_is_read_and_not_paid_for_again(endpoint, connect) -> None:
    endpoint.answer = saying(b'{"choices": [{"message": {"content": "a \\ud83d b"}, "finish_reason": "stop"}]}')
    [reply] = await all_of(await connect(), 1)
    assert reply.samples[0].text == "a \ufffd b"
    assert len(endpoint.asked) == 1


# What passes by itself


@pytest.mark.parametrize(
    ("fault", "billed"),
    [
        (refusing(429), False),
        (refusing(500), False),
        (refusing(503), False),
        (refusing(408), True),
        (saying(b"<html>Bad gateway</html>", "text/html"), True),
        (saying(b'{"error": {"message": "overloaded"}}'), True),
        (saying(b'{"choices": []}'), True),
        (saying(b'{"choices": [{"message": {"content": "cut'), True),
        (saying(b'{"choices": [{"message": {"content": {"no": "text"}}}]}'), True),
        (saying(b"[" * 100_000), True),
        (saying(b""), True),
        (cut, True),
        (reset, True),
    ],
)
async def test_a_transient_fault_is_retried_and_never_data(endpoint, connect, fault, billed) -> None:
    endpoint.first(5, fault)
    client = await connect()
    assert texts(await all_of(client, 4)) == answers(4)
    assert len(endpoint.asked) == 4 + 5
    assert client.ledger.spent.calls == 4 + 5 * billed  # charged, where what was sent may have been answered


async def test_an_answer_that_takes_too_long_is_asked_again(endpoint, connect) -> None:
    async def stuck(body: dict, request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    endpoint.first(1, stuck)
    assert texts(await all_of(await connect(timeout=0.3), 1)) == answers(1)


async def test_an_endpoint_that_goes_down_is_waited_for(endpoint, connect, unused_tcp_port, caplog) -> None:
    there = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", unused_tcp_port)
    client = await connect(base_url=f"http://127.0.0.1:{unused_tcp_port}/v1")
    there.close()
    await there.wait_closed()
    asked = asyncio.create_task(client.generate(prompt(1)))
    while not caplog.records:
        await asyncio.sleep(0.01)
    application = web.Application()
    application.router.add_post("/v1/chat/completions", endpoint.handle)
    late = TestServer(application, port=unused_tcp_port)
    await late.start_server()
    assert (await asked).samples[0].text == "answer to 1"
    assert "row-1" in caplog.text
    await late.close()


async def test_every_row_finishes_once_among_many_faults(connect) -> None:
    shares = ["--share-429", "0.1", "--share-500", "0.02", "--share-drop", "0.01", "--share-html", "0.01"]
    with mock("--latency-ms", "2", *shares) as url:
        ends = await all_of(await connect(base_url=url, max_concurrency=64), 1000)
        stats = await asyncio.to_thread(asked, url)
    assert len(texts(ends)) == 1000
    assert not any("html" in text or "mock answers" in text for text in texts(ends))
    assert Counter(answered for _, answered in stats["prompts"].values()) == {1: 1000}
    assert stats["outcomes"]["429"] > 50 and stats["outcomes"]["500"] > 5
    assert stats["most_in_flight"] <= 64


# What cannot pass


async def test_a_website_is_no_endpoint(endpoint, connect) -> None:
    endpoint.answer = saying(b"<html>Welcome!</html>", "text/html")
    ends = await all_of(await connect(), 30)
    assert all(isinstance(end, FatalEngineError) for end in ends)
    assert "check teacher.base_url" in str(ends[0]) and "Welcome!" in str(ends[0])
    assert len(endpoint.asked) <= openai.MAX_NON_COMPLETIONS + 8


async def test_a_page_among_answers_passes(endpoint, connect) -> None:
    client = await connect(max_concurrency=1)
    await all_of(client, 1)
    endpoint.answer = saying(b"<html>Bad gateway</html>", "text/html")
    asked = asyncio.create_task(client.generate(prompt("late")))
    while len(endpoint.asked) <= openai.MAX_NON_COMPLETIONS + 1:
        await asyncio.sleep(0.01)
    endpoint.answer = good
    assert (await asked).samples[0].text == "answer to late"


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        (refusing(401, "Incorrect API key"), "ENDPOINT_KEY"),
        (refusing(403, "not allowed"), "teacher.api_key_env"),
        (refusing(404, "Not Found"), "teacher.base_url"),
        (refusing(404, "The model `m` does not exist", "model_not_found"), "teacher.model"),
        (refusing(400, "The model `m` does not exist", "invalid_model"), "teacher.model"),
        (refusing(400, "not in this region"), "not in this region"),
        (refusing(402, "Insufficient Balance"), "credit"),
        (refusing(429, "You exceeded your current quota", "insufficient_quota"), "credit"),
        (refusing(307, "moved", Location="https://elsewhere.invalid/v1"), "teacher.base_url"),
    ],
)
async def test_a_hopeless_answer_stops_every_row_at_once(endpoint, connect, answer, names) -> None:
    endpoint.answer = answer
    ends = await all_of(await connect(max_concurrency=4), 50)
    assert all(isinstance(end, FatalEngineError) for end in ends)
    assert len(endpoint.asked) <= 4
    assert names in str(ends[0]) and endpoint.url in str(ends[0])


async def test_a_refusal_wakes_those_that_wait_for_another_try(endpoint, connect) -> None:
    async def answer(body: dict, request: web.Request) -> web.StreamResponse:
        waits = refusing(429, **{"Retry-After": "3600"})
        return await (waits if endpoint.asked[-1] == "0" else refusing(401))(body, request)

    endpoint.answer = answer
    ends = await asyncio.wait_for(all_of(await connect(max_concurrency=1), 2), 20)
    assert [type(end) for end in ends] == [FatalEngineError, FatalEngineError]


async def test_an_endpoints_words_are_shown_short_and_without_control_characters(endpoint, connect) -> None:
    endpoint.answer = refusing(401, "\x1b[31mred\x07\u202e alert\n" + "x" * 1000)
    [end] = await all_of(await connect(), 1)
    said = str(end).partition("It said: ")[2]
    assert "red alert" in " ".join(said.split()) and said.isprintable()
    assert len(said) < 230


async def test_a_prompt_that_is_too_long_is_that_rows_fault_alone(endpoint, connect) -> None:
    async def answer(body: dict, request: web.Request) -> web.StreamResponse:
        too_long = refusing(400, "This model's maximum context length is 10 tokens.", "context_length_exceeded")
        return await (too_long if endpoint.asked[-1] == "1" else good)(body, request)

    endpoint.answer = answer
    ends = await all_of(await connect(), 3)
    assert isinstance(ends[1], PromptTooLong)
    assert texts(ends) == ["answer to 0", "answer to 2"]


async def test_a_filtered_prompt_is_an_empty_reply(endpoint, connect) -> None:
    endpoint.answer = refusing(400, "filtered", "content_filter")
    [reply] = await all_of(await connect(), 1, n=2)
    assert [(sample.text, sample.finish_reason) for sample in reply.samples] == [("", "content_filter")] * 2


async def test_a_filtered_answer_without_content_is_an_empty_reply(endpoint, connect) -> None:
    async def answer(body: dict, request: web.Request) -> web.StreamResponse:
        return completion(None, finish="content_filter")

    endpoint.answer = answer
    [reply] = await all_of(await connect(), 1)
    assert (reply.samples[0].text, reply.samples[0].finish_reason) == ("", "content_filter")


async def test_an_address_where_nobody_is_ends_the_start_with_the_key_to_correct(tmp_path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = OpenAIEngine(engine="openai", model="m", base_url=f"http://127.0.0.1:{port}/v1")
    engine = OpenAI(config, ledger_of(LocalFolder(tmp_path)))
    with pytest.raises(UserError, match=r"teacher\.base_url: nobody answers"):
        await engine.start()
