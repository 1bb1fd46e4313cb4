"""A paid endpoint through the whole stage, committed shards included, against bare aiohttp on the same prompts.

    python -m benchmarks.endpoint --rows 12000

The endpoint is a mock on this machine: 50 ms an answer, 64 in flight. It counts what it was asked, so it also says how
many prompts were sent twice after a SIGKILL at half, and whether every row is finished with 10% 429 and 2% 500.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from benchmarks import process, report
from benchmarks.orchestration import FAST
from benchmarks.prompts import planned
from speed_ray.engines.base import Request
from speed_ray.storage.run import EXAMPLES

IN_FLIGHT = 64
SHARD_ROWS = 256


@contextmanager
def mock(*arguments: str) -> Iterator[str]:
    """Start the mock endpoint; yield its base URL."""
    command = [sys.executable, "-m", "benchmarks.mock_endpoint", "--latency-ms", "50", *arguments]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        yield server.stdout.readline().strip()
    finally:
        server.terminate()
        server.wait()


def stats(url: str, prompts: bool = False) -> dict[str, Any]:
    """What the mock was asked."""
    root = url.removesuffix("/v1")
    answer: dict[str, Any] = json.load(urllib.request.urlopen(f"{root}/stats{'?prompts=1' if prompts else ''}"))
    return answer


def overrides(url: str, rows: int) -> list[str]:
    """One run on the mock."""
    endpoint = f"{{engine: openai, model: mock, base_url: {url!r}, max_concurrency: {IN_FLIGHT}}}"
    sizes = [f"synthesize.examples={rows}", f"synthesize.shard_rows={SHARD_ROWS}"]
    return [f"teacher={FAST}", f"generator={endpoint}", *sizes]


def ours(run: Path, url: str, rows: int) -> dict[str, Any]:
    """The whole stage: rows a second from the first shard's start to the last commit."""
    process.job("brainstorm", run, overrides(url, rows))
    usage = process.job("synthesize", run, overrides(url, rows))
    commits = process.commits(run, EXAMPLES)
    seconds = max(c.finished for c in commits) - min(c.started for c in commits)
    return {
        "client": "speed_ray",
        "rows": rows,
        "rows/s": rows / seconds,
        "CPU s per 1,000 rows": usage.cpu_seconds / rows * 1000,
        "wall s with start-up": usage.seconds,
        "accepted": sum(c.counts.accepted for c in commits),
    }


def bare(run: Path, url: str, rows: int) -> dict[str, Any]:
    """The very same prompts, posted and parsed; nothing retried, nothing stored."""
    _, requests = planned(str(run), overrides(url, rows))

    async def ask() -> float:
        pending = iter(requests)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def work() -> None:
                for request in pending:
                    async with session.post(f"{url}/chat/completions", json=_body(request)) as response:
                        orjson.loads(await response.read())["choices"][0]["message"]["content"]

            began = time.perf_counter()
            await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
            return time.perf_counter() - began

    cpu = time.process_time()
    seconds = asyncio.run(ask())
    used = time.process_time() - cpu
    return {
        "client": "bare aiohttp",
        "rows": rows,
        "rows/s": rows / seconds,
        "CPU s per 1,000 rows": used / rows * 1000,
    }


def _body(request: Request) -> dict[str, Any]:
    schema = {"type": "json_schema", "json_schema": {"name": "reply", "schema": request.schema}}
    return {"model": "mock", "messages": request.messages, "max_tokens": 160, "response_format": schema}


def killed(run: Path, rows: int) -> dict[str, Any]:
    """SIGKILL at half, go on; prompts that the endpoint saw more than once."""
    with mock() as url:
        process.job("brainstorm", run, overrides(url, rows))
        half = lambda: process.committed_rows(run, EXAMPLES, SHARD_ROWS) >= rows // 2  # noqa: E731
        process.job("synthesize", run, overrides(url, rows), kill_when=half)
        process.job("synthesize", run, overrides(url, rows))
        # A malformed reply asks the same prompt again by right: count what was sent over what was paid for.
        calls = sum(commit.counts.calls for commit in process.commits(run, EXAMPLES))
        return {"client": "speed_ray, SIGKILL at half", "rows": rows, "sent twice": stats(url)["requests"] - calls}


def faulty(run: Path, rows: int) -> dict[str, Any]:
    """10% of the answers 429, 2% 500: how many rows are finished."""
    with mock("--share-429", "0.1", "--share-500", "0.02") as url:
        return {**ours(run, url, rows), "client": "speed_ray, 10% 429 and 2% 500"}


def main() -> None:
    parser = report.options(__doc__)
    parser.add_argument("--rows", type=int, default=12_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="endpoint-") as name:
        folder, details = Path(name), []
        with mock() as url:
            for turn in range(options.rounds):
                report.say(f"endpoint: round {turn + 1} of {options.rounds}")
                details.append(ours(folder / f"run-{turn}", url, options.rows))
                details.append(bare(folder / f"run-{turn}", url, options.rows))
        ratios = sorted(a["rows/s"] / b["rows/s"] for a, b in zip(details[::2], details[1::2], strict=True))
        report.say("endpoint: faults, then a kill")
        details.append(faulty(folder / "faulty", options.rows))
        details.append(killed(folder / "killed", options.rows))
    figure = ratios[len(ratios) // 2]
    met = figure >= 0.9 and details[-1]["sent twice"] <= 128
    report.emit(
        report.Result("endpoint", figure, ">= 0.9, sent twice <= 128", "rows/s, ours / bare", met, details),
        options.json,
    )


if __name__ == "__main__":
    main()
