"""How fast an endpoint is asked: as it bears, no more at once than the recipe says, and told while it waits."""

import asyncio
import email.utils
import time

import pytest
from aiohttp import web

from speed_ray.engines import openai
from speed_ray.engines.endpoint import LONGEST_RETRY_AFTER, parse_retry_after
from speed_ray.engines.throttle import Throttle
from speed_ray.recipes.engine_settings import Budget
from tests.helpers.tiny_endpoint import all_of, answers, good, prompt, refusing, texts


async def test_retry_after_is_waited_for_without_holding_a_slot(endpoint, connect) -> None:
    async def answer(body: dict, request: web.Request) -> web.StreamResponse:
        if endpoint.asked[-1] == "patient" and endpoint.asked.count("patient") == 1:
            return await refusing(429, **{"Retry-After": "1"})(body, request)
        if endpoint.asked[-1] == "hasty" and endpoint.asked.count("hasty") < 6:
            return await refusing(429)(body, request)
        return await good(body, request)

    endpoint.answer = answer
    client = await connect(max_concurrency=1)
    await asyncio.gather(client.generate(prompt("patient")), client.generate(prompt("hasty")))
    assert endpoint.asked == ["patient", *["hasty"] * 6, "patient"]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "0.5"}, 0.5),
        ({"Retry-After": "20s"}, 20),
        ({"Retry-After": "-3"}, 0),
        ({"Retry-After": "nan"}, 0),
        ({"Retry-After": "soon"}, 0),
        ({}, 0),
        ({"Retry-After": "9" * 400}, LONGEST_RETRY_AFTER),
        ({"retry-after-ms": "250", "Retry-After": "1"}, 0.25),
        ({"retry-after-ms": "soon", "Retry-After": "1"}, 1),
        ({"retry-after-ms": "9" * 400}, LONGEST_RETRY_AFTER),
    ],
)
def test_retry_after_is_read_as_seconds(headers, seconds) -> None:
    assert parse_retry_after(headers) == seconds
    assert openai._delay(0, parse_retry_after(headers)) >= seconds


async def test_milliseconds_are_waited_for_whatever_the_case_of_their_header(endpoint, connect) -> None:
    endpoint.first(1, refusing(429, **{"Retry-After-Ms": "400", "Retry-After": "30"}))
    client = await connect()
    began = time.monotonic()
    assert texts(await all_of(client, 1)) == answers(1)
    assert 0.4 <= time.monotonic() - began < 10


@pytest.mark.parametrize(("ahead", "least", "most"), [(3600, 3000, 3600), (-3600, 0, 0)])
def test_retry_after_is_read_as_a_date(ahead, least, most) -> None:
    header = email.utils.formatdate(time.time() + ahead, usegmt=True)
    assert least <= parse_retry_after({"Retry-After": header}) <= most


async def test_concurrency_falls_when_pushed_back_and_recovers_by_itself(endpoint, connect) -> None:
    async def crowded(body: dict, request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.005)
        return await (refusing(429) if endpoint.at_once > 2 else good)(body, request)

    async def roomy(body: dict, request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.005)
        return await good(body, request)

    client = await connect(max_concurrency=16)
    endpoint.answer = crowded
    assert texts(await all_of(client, 200)) == answers(200)
    assert client.throttle.limit < 8
    endpoint.answer, endpoint.most_at_once = roomy, 0
    assert texts(await all_of(client, 300)) == answers(300)
    assert client.throttle.limit == endpoint.most_at_once == 16


async def test_one_round_trip_of_push_back_lowers_the_limit_once(endpoint, connect) -> None:
    endpoint.first(16, refusing(429))
    client = await connect(max_concurrency=16)
    limits = []
    record = client.throttle.record_response

    def watched(*, rate_limited: bool) -> None:
        record(rate_limited=rate_limited)
        limits.append(client.throttle.limit)

    client.throttle.record_response = watched
    await all_of(client, 16)
    assert min(limits) == 8


async def test_most_rows_in_flight_is_the_recipes(endpoint, connect) -> None:
    async def slow(body: dict, request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.005)
        return await good(body, request)

    endpoint.answer = slow
    await all_of(await connect(max_concurrency=5), 50)
    assert endpoint.most_at_once == 5


async def test_cancelled_callers_leave_their_slot_to_others(endpoint, connect) -> None:
    async def slow(body: dict, request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.02)
        return await good(body, request)

    endpoint.answer = slow
    client = await connect(max_concurrency=2, budget=Budget(calls=100))
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


async def test_waiting_is_reported_in_turn_and_not_for_every_fault(endpoint, connect, monkeypatch, caplog) -> None:
    monkeypatch.setattr(openai, "REPORT_EVERY", 0.3)
    endpoint.answer = refusing(503, "warming up")
    client = await connect()
    asked = [asyncio.create_task(client.generate(prompt(row))) for row in range(8)]
    while len(caplog.records) < 4:
        await asyncio.sleep(0.01)
    assert len(endpoint.asked) > 2 * len(caplog.records)
    assert "warming up" in caplog.text and "8 requests wait" in caplog.text
    for task in asked:
        task.cancel()


async def test_silence_is_reported(endpoint, connect, monkeypatch, caplog) -> None:
    async def silent(body: dict, request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    monkeypatch.setattr(openai, "REPORT_EVERY", 0.05)
    endpoint.answer = silent
    asked = asyncio.create_task((await connect()).generate(prompt(1)))
    while "1 requests wait" not in caplog.text:
        await asyncio.sleep(0.01)
    asked.cancel()
