"""How much of a bare aiohttp client's rate the endpoint engine keeps, both against the same mock on this machine.

    python -m benchmarks.bare_aiohttp --rows 12000 --in-flight 64 --latency-ms 50

The bare client is what a script would do: post, read the body, parse the JSON; no retry, no limit but its own workers.
"""

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import orjson

from speed_ray.engines.base import Request
from speed_ray.engines.budget import Ledger
from speed_ray.engines.openai import OpenAI
from speed_ray.recipes.engine_settings import Budget, OpenAIEngine
from speed_ray.storage.holder import Holder
from speed_ray.storage.spending import Spending
from speed_ray.storage.store import LocalFolder

SCHEMA = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("user_query", "positive_document", "hard_negative_document")},
}
Ask = Callable[[Request], Awaitable[object]]


def requests(rows: int) -> list[Request]:
    """Make prompts of about the length of ours."""
    prompt = "Write one example for a retrieval task. " * 30
    return [
        Request(f"{row:032x}", [{"role": "user", "content": f"{prompt}{row}"}], seed=row, schema=SCHEMA)
        for row in range(rows)
    ]


@asynccontextmanager
async def bare(url: str, in_flight: int) -> AsyncIterator[Ask]:
    """Post and parse."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask(request: Request) -> object:
            body = {"model": "mock", "messages": request.messages, "seed": request.seed, "max_tokens": 800}
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": "r", "schema": request.schema}}
            async with session.post(f"{url}/chat/completions", json=body) as response:
                answer = orjson.loads(await response.read())
            return answer["choices"][0]["message"]["content"]

        yield ask


@asynccontextmanager
async def engine(url: str, in_flight: int) -> AsyncIterator[Ask]:
    """Our engine, nothing around it."""
    config = OpenAIEngine(engine="openai", model="mock", base_url=url, max_concurrency=in_flight)
    with tempfile.TemporaryDirectory() as folder:
        store = LocalFolder(Path(folder))
        client = OpenAI(config, Ledger(Budget(), None, Spending(store, "teacher"), Holder(store), "teacher"))
        await client.start()
        yield client.generate
        await client.close()


async def measure(client: Callable[[str, int], object], url: str, rows: int, in_flight: int) -> tuple[float, float]:
    """Return rows a second and CPU seconds per 1,000 rows of this process."""
    pending = iter(requests(rows))

    async def work(ask: Ask) -> None:
        for request in pending:
            await ask(request)

    async with client(url, in_flight) as ask:  # type: ignore[attr-defined]
        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(work(ask) for _ in range(in_flight)))
        return rows / (time.perf_counter() - began), (time.process_time() - cpu) / rows * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=12_000)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--latency-ms", type=float, default=50)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    mock = Path(__file__).with_name("mock_endpoint.py")
    command = [sys.executable, str(mock), "--latency-ms", str(options.latency_ms)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        for client in (bare, engine) * options.rounds:
            rate, cpu = asyncio.run(measure(client, url, options.rows, options.in_flight))
            print(f"{client.__name__:8} {rate:7,.0f} rows/s   {cpu:.2f} s CPU per 1,000 rows", flush=True)
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    main()
