"""What an endpoint may cost, and the key that pays for it: never more than the budget, never shown."""

import logging
import traceback

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from speed_ray.engines.base import FatalEngineError
from speed_ray.errors import UserError
from speed_ray.recipes.engine_settings import Budget, Price
from speed_ray.storage.spending import Usage
from tests.helpers.tiny_endpoint import KEY, Endpoint, all_of, answers, completion, cut, refusing, saying, texts


async def test_the_budget_of_calls_is_exact_over_a_restart(endpoint, connect) -> None:
    first = await connect("run", budget=Budget(calls=10), max_concurrency=64)
    assert len(texts(await all_of(first, 7))) == 7
    await first.close()
    second = await connect("run", budget=Budget(calls=10), max_concurrency=64)
    ends = await all_of(second, 50)
    assert len(texts(ends)) == 3
    assert len(endpoint.asked) == 10
    refused = [end for end in ends if isinstance(end, FatalEngineError)]
    assert len(refused) == 47
    assert "teacher.budget.calls" in str(refused[0]) and "10 of 10" in str(refused[0])


async def test_faults_that_nobody_bills_leave_the_budget_alone(endpoint, connect) -> None:
    endpoint.first(20, refusing(500))
    assert texts(await all_of(await connect(budget=Budget(calls=5)), 5)) == answers(5)


@pytest.mark.parametrize("budget", [Budget(tokens=2000), Budget(dollars=0.01)])
async def test_tokens_and_dollars_never_pass_the_budget_and_nearly_reach_it(endpoint, connect, budget) -> None:
    price = Price(input=2.0, output=8.0)  # 0.00018 dollars for the 10 + 20 tokens of a good answer
    client = await connect(budget=budget, price=price, max_concurrency=64)
    ends = await all_of(client, 200, max_tokens=100)
    calls = len(endpoint.asked)
    assert isinstance(ends[-1], FatalEngineError)
    assert calls == len(texts(ends))
    most, each, bound = (2000, 30, 117) if budget.tokens else (0.01, 0.00018, 0.00084)
    assert most - bound <= calls * each <= most


async def test_answers_lost_on_the_way_count_against_the_budget(endpoint, connect) -> None:
    endpoint.answer = cut
    [end] = await all_of(await connect(budget=Budget(calls=3)), 1)
    assert isinstance(end, FatalEngineError)
    assert len(endpoint.asked) == 3


async def test_a_budget_in_tokens_holds_without_usage(endpoint, connect) -> None:
    async def answer(body: dict, request: web.Request) -> web.StreamResponse:
        return completion("text")

    endpoint.answer = answer
    await all_of(await connect(budget=Budget(tokens=1000)), 50, max_tokens=100)
    assert 1 <= len(endpoint.asked) <= 1000 // 100


@pytest.mark.parametrize(
    ("body", "charged"),
    [
        (b'{"choices": [{"message": {"content": "half of', 100),
        (b'{"choices": [{"finish_reason": "stop"}]}', 100),
        (b'{"choices": [{"message": {"content": "half"}, "finish_reason": "error"}]}', 100),
        (b'data: {"choices": [{"delta": {"content": "half of"}}]}\n\n', 100),
        (
            b'data: {"choices": [{"delta": {"content": "half"}}]}\n\ndata: {"error": {"code": 502}}\n\ndata: [DONE]',
            100,
        ),
        (b'{"error": {"code": 429, "message": "Rate limit exceeded"}}', 0),
        (b"<html>We will be back soon</html>", 0),
    ],
)
async def test_an_answer_that_broke_off_is_charged_at_its_bound(endpoint, connect, body, charged) -> None:
    endpoint.first(1, saying(body))
    client = await connect(budget=Budget(tokens=10_000), max_concurrency=1)
    assert texts(await all_of(client, 1, max_tokens=100)) == answers(1)
    assert client.ledger.spent.calls == 2
    assert client.ledger.spent.output_tokens == 20 + charged


@pytest.mark.parametrize(
    ("extra_body", "bound"),
    [({"max_tokens": 500}, 500), ({"max_completion_tokens": 500}, 500), ({"n": 3}, 300), ({"max_tokens": 9}, 100)],
)
async def test_the_bound_of_a_call_knows_the_limits_of_the_recipe(endpoint, connect, extra_body, bound) -> None:
    endpoint.answer = saying(b'{"choices": [{"message": {"content": "text"}}]}')
    client = await connect(budget=Budget(tokens=10_000), extra_body=extra_body)
    await all_of(client, 1, max_tokens=100)
    assert client.ledger.spent.output_tokens == bound


async def test_a_filtered_prompt_is_charged_as_read(endpoint, connect) -> None:
    endpoint.answer = refusing(400, "The response was filtered", "content_filter")
    client = await connect(budget=Budget(tokens=10_000))
    await all_of(client, 1, max_tokens=100)
    assert (client.ledger.spent.prompt_tokens, client.ledger.spent.output_tokens) == (17, 0)


@pytest.mark.parametrize("count", ["1e400", "1e30", "-1", '"7"', "true"])
async def test_a_count_that_is_none_is_charged_at_its_bound(endpoint, connect, count) -> None:
    usage = f'{{"prompt_tokens": 1, "completion_tokens": {count}}}'
    endpoint.answer = saying(f'{{"choices": [{{"message": {{"content": "text"}}}}], "usage": {usage}}}'.encode())
    client = await connect(budget=Budget(tokens=10_000))
    assert texts(await all_of(client, 1, max_tokens=100)) == ["text"]
    assert client.ledger.spent.output_tokens == 100


async def test_dollars_need_a_price(connect) -> None:
    with pytest.raises(UserError, match=r"generator\.price"):
        await connect(budget=Budget(dollars=1.0), key="generator")


async def test_what_was_spent_adds_up(endpoint, connect) -> None:
    client = await connect()
    endpoint.first(2, refusing(500))
    await all_of(client, 4)
    assert client.ledger.spent == Usage(calls=4, prompt_tokens=40, output_tokens=80)


@pytest.mark.parametrize("status", [401, 404, 400, 500])
async def test_the_key_never_shows_even_when_the_endpoint_repeats_it(endpoint, connect, caplog, status) -> None:
    caplog.set_level(logging.DEBUG)
    endpoint.first(3, refusing(status, f"bad key {KEY} in Bearer {KEY}"))
    ends = await all_of(await connect(max_concurrency=1), 3)
    traces = "".join("".join(traceback.format_exception(end)) for end in ends if isinstance(end, BaseException))
    assert endpoint.asked
    assert KEY not in caplog.text + traces + repr(ends)
    assert "[key]" in caplog.text + traces


async def test_the_key_follows_no_redirect(endpoint, connect) -> None:
    elsewhere = Endpoint()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", elsewhere.handle)
    other = TestServer(application)
    await other.start_server()
    endpoint.answer = refusing(307, Location=str(other.make_url("/v1/chat/completions")))
    await all_of(await connect(), 1)
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
async def test_a_wrong_key_or_address_is_the_users_error(connect, monkeypatch, variable, base_url) -> None:
    monkeypatch.setenv("ENDPOINT_KEY", variable)
    with pytest.raises(UserError) as caught:
        await connect(base_url=base_url)
    assert KEY not in str(caught.value)
