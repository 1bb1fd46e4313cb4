"""A real local endpoint that answers as each test says, and what tests of the endpoint engine ask of it."""

import asyncio
import json
import subprocess
import sys
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

from speed_ray.engines.base import Reply, Request
from speed_ray.engines.openai import OpenAI
from tests.helpers.paths import ROOT

MOCK = ROOT / "benchmarks" / "mock_endpoint.py"
KEY = "sk-this-must-never-be-seen"
Answer = Callable[[dict, web.Request], Awaitable[web.StreamResponse]]


class Endpoint:
    """A server whose `answer(body, request)` each test sets; it remembers what it was sent."""

    def __init__(self) -> None:
        self.answer: Answer = good
        self.url = ""
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


def prompt(text: object, **settings) -> Request:
    return Request(f"row-{text}", [{"role": "user", "content": str(text)}], **settings)


async def all_of(engine: OpenAI, rows: int, **settings) -> list[Reply | BaseException]:
    asked = (engine.generate(prompt(row, **settings)) for row in range(rows))
    return await asyncio.gather(*asked, return_exceptions=True)


def texts(replies: list[Reply | BaseException]) -> list[str]:
    return [sample.text for reply in replies if isinstance(reply, Reply) for sample in reply.samples]


def answers(rows: int) -> list[str]:
    return [f"answer to {row}" for row in range(rows)]


@contextmanager
def mock(*arguments: str) -> Iterator[str]:
    """Start the benchmarks' mock endpoint, which counts what it is asked; yield its base URL."""
    with subprocess.Popen([sys.executable, str(MOCK), *arguments], stdout=subprocess.PIPE, text=True) as server:
        try:
            yield server.stdout.readline().strip()
        finally:
            server.kill()


def asked(url: str) -> dict[str, Any]:
    """What the mock was asked, prompt by prompt."""
    with urllib.request.urlopen(url.removesuffix("/v1") + "/stats?prompts=1") as answer:
        return json.load(answer)
