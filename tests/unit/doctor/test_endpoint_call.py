"""One cheap call tells what an endpoint is worth: each of its faults is named, with what to do."""

import asyncio
import socket

import pytest
from aiohttp import web

from speed_ray.doctor import endpoint_call
from speed_ray.recipes.engine_settings import OpenAIEngine
from tests.helpers.tiny_endpoint import KEY, refusing

FULL = {"prompt_tokens": 30, "completion_tokens": 5}


def answering(text: str = '{"answer": "yes"}', logprobs: bool = True, **headers: str):
    async def answer(body: dict, request: web.Request) -> web.StreamResponse:
        choice = {"message": {"content": text}, "finish_reason": "stop"}
        if logprobs and body.get("logprobs"):
            choice["logprobs"] = {"content": [{"top_logprobs": [{"token": "{", "logprob": -0.1}]}]}
        return web.json_response({"choices": [choice], "usage": FULL}, headers=headers)

    return answer


@pytest.fixture
def examine(endpoint, monkeypatch):
    monkeypatch.setenv("ENDPOINT_KEY", KEY)

    async def run(judges: bool = False, **settings):
        settings = {"base_url": endpoint.url, "api_key_env": "ENDPOINT_KEY", **settings}
        config = OpenAIEngine(engine="openai", model="m", **settings)
        ask = endpoint_call.check_endpoint_answers
        found = await asyncio.to_thread(lambda: list(ask(config, "teacher", judges)))
        assert KEY not in str(found)
        return {each.name: each for each in found}

    return run


async def test_a_good_endpoint_is_asked_once_and_its_cost_is_told(endpoint, examine) -> None:
    endpoint.answer = answering(**{"x-ratelimit-limit-requests": "500"})
    found = await examine(price={"input": 1.0, "output": 10.0})
    assert {each.level for each in found.values()} == {"ok"} and len(endpoint.asked) == 1
    assert "30 + 5 tokens, $0.000080" in found["teacher"].found
    assert found["teacher, limits"].found == "x-ratelimit-limit-requests 500"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (refusing(401), "does not accept the key in ENDPOINT_KEY"),
        (refusing(404, "The model `m` does not exist", "model_not_found"), "it has no model 'm': check teacher.model"),
    ],
    ids=["key", "model"],
)
async def test_an_endpoint_that_would_not_do_fails(endpoint, examine, answer, said) -> None:
    endpoint.answer = answer
    found = await examine()
    assert found["teacher"].level == "fail" and said in found["teacher"].found + found["teacher"].advice


async def test_an_endpoint_that_pushes_back_is_not_waited_for(endpoint, examine, monkeypatch) -> None:
    monkeypatch.setattr(endpoint_call, "SECONDS", 0.5)
    endpoint.answer = refusing(429)
    found = await examine()
    assert found["teacher"].level == "fail" and "or pushed back all the time" in found["teacher"].found


async def test_nobody_at_the_address(examine, monkeypatch) -> None:
    monkeypatch.setattr("speed_ray.engines.openai.CONNECT_RETRIES", (0.0,))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        found = await examine(base_url=f"http://127.0.0.1:{free.getsockname()[1]}/v1")
    assert found["teacher"].level == "fail" and "nobody answers" in found["teacher"].found


async def test_a_key_that_is_not_set(examine) -> None:
    found = await examine(api_key_env="NO_SUCH_KEY")
    assert found["teacher"].level == "fail" and "NO_SUCH_KEY, which is not set" in found["teacher"].found


async def test_a_reply_that_is_not_held_to_its_schema_is_a_warning(endpoint, examine) -> None:
    endpoint.answer = answering("Yes, it is.")
    found = await examine()
    assert found["teacher, structured output"].level == "warn"


async def test_a_refused_schema_is_a_warning(endpoint, examine) -> None:
    async def answer(body: dict, request: web.Request) -> web.StreamResponse:
        refuse = refusing(400, "response_format is not supported", "unsupported_parameter")
        return await (refuse if "response_format" in body else answering())(body, request)

    endpoint.answer = answer
    found = await examine()
    assert found["teacher, structured output"].found == "the endpoint takes no JSON schema"


@pytest.mark.parametrize(("judges", "level"), [(False, "ok"), (True, "fail")])
async def test_logprobs_matter_to_a_judge_alone(endpoint, examine, judges, level) -> None:
    async def answer(body: dict, request: web.Request) -> web.StreamResponse:
        refuse = refusing(400, "logprobs are not supported by this model")
        return await (refuse if "logprobs" in body else answering())(body, request)

    endpoint.answer = answer
    found = await examine(judges)
    assert found["teacher, log-probabilities"].level == level
