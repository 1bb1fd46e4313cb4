"""A mock of an OpenAI-compatible endpoint, as a process of its own: latency, faults, and an account of what was asked.

    python -m benchmarks.mock_endpoint --latency-ms 50 --share-429 0.1 --share-500 0.02

prints its base URL on the first line. `GET /stats` tells what it was asked; with `?prompts=1` also how often each
prompt was asked and answered, which shows what a client paid for twice. Raw asyncio, because it shares the machine's
cores with the client that is measured. Replies follow the JSON schema that comes with a request.
"""

import argparse
import asyncio
import contextlib
import random
import re
import zlib
from collections import Counter
from typing import Any

import orjson

from speed_ray.engines.fake_text import fake_reply

PAGE = b"<html><body><h1>Bad gateway</h1></body></html>"
LEAST = re.compile(r"at least (\d+) words")
SHORT = re.compile(r"`input_text` has fewer than|is a sentence or a phrase")
REASONS = {200: "OK", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests", 500: "Internal Server Error"}


class Account:
    """What was asked and answered, for /stats."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.in_flight = 0
        self.most_in_flight = 0

    def summary(self, prompts: bool) -> dict[str, Any]:
        """Count; `prompts` adds every prompt with how often it was asked and answered."""
        counts: dict[str, Any] = {
            "requests": self.asked.total(),
            "outcomes": dict(self.outcomes),
            "most_in_flight": self.most_in_flight,
            "distinct_prompts": len(self.asked),
            "answered_twice": sum(times > 1 for times in self.answered.values()),
        }
        if prompts:
            counts["prompts"] = {prompt: [times, self.answered[prompt]] for prompt, times in self.asked.items()}
        return counts


class Endpoint(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    def __init__(self, options: argparse.Namespace, account: Account, rng: random.Random) -> None:
        self.options = options
        self.account = account
        self.rng = rng
        self.buffer = b""
        self.closed = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True

    def data_received(self, data: bytes) -> None:
        """Collect until a whole request is there."""
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.buffer[:end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self.buffer) < end + 4 + length:
            return
        path = self.buffer.split(b" ", 2)[1]
        body, self.buffer = self.buffer[end + 4 : end + 4 + length], self.buffer[end + 4 + length :]
        if path.startswith(b"/stats"):
            self.send(200, orjson.dumps(self.account.summary(prompts=b"prompts=1" in path)))
        else:
            self.asked(body)

    def asked(self, body: bytes) -> None:
        """Decide now what becomes of a request; it happens after the latency."""
        request = orjson.loads(body)
        prompt = request["messages"][-1]["content"]
        account = self.account
        account.asked[prompt] += 1
        account.in_flight += 1
        account.most_in_flight = max(account.most_in_flight, account.in_flight)
        outcome = self.outcome()
        account.outcomes[outcome] += 1
        asyncio.get_running_loop().call_later(self.options.latency_ms / 1000, self.finish, outcome, request, prompt)

    def outcome(self) -> str:
        """Draw "200", another status, "drop" (closed in mid-body) or "html"."""
        options = self.options
        if options.always:
            return str(options.always)
        if options.capacity and self.account.in_flight > options.capacity:
            return "429"
        drawn = self.rng.random()
        shares = {
            "429": options.share_429,
            "500": options.share_500,
            "drop": options.share_drop,
            "html": options.share_html,
        }
        for outcome, share in shares.items():
            if drawn < share:
                return outcome
            drawn -= share
        return "200"

    def finish(self, outcome: str, request: dict[str, Any], prompt: str) -> None:
        """Send what was decided."""
        self.account.in_flight -= 1
        if self.closed:
            return
        if outcome == "html":
            self.send(200, PAGE, "text/html")
        elif outcome in ("200", "drop"):
            told = self.options
            answer = completion(request, prompt, told.tokens, told.spread, told.share_malformed)
            if outcome == "drop":
                self.send(200, answer, short_by=len(answer) // 2)
                self.transport.close()
            else:
                self.account.answered[prompt] += 1
                self.send(200, answer)
        else:
            said = {"error": {"message": f"the mock answers {outcome}", "code": f"mock_{outcome}"}}
            self.send(int(outcome), orjson.dumps(said))

    def send(self, status: int, body: bytes, kind: str = "application/json", short_by: int = 0) -> None:
        """Write one response; `short_by` bytes of the promised body are left out."""
        retry = f"Retry-After: {self.options.retry_after}\r\n" if status == 429 and self.options.retry_after else ""
        head = f"HTTP/1.1 {status} {REASONS.get(status, '-')}\r\nContent-Type: {kind}\r\n{retry}"
        self.transport.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[: len(body) - short_by])


def completion(
    request: dict[str, Any], prompt: str, tokens: int, spread: float = 0, share_malformed: float = 0
) -> bytes:
    """Answer as an endpoint does; the same prompt and seed give the same text, or the same malformed one."""
    rng = random.Random(zlib.crc32(prompt.encode()) ^ request.get("seed", 0))
    tokens = max(1, round(tokens * (1 + spread * rng.uniform(-1, 1))))
    malformed = rng.random() < share_malformed
    schema = request.get("response_format", {}).get("json_schema", {}).get("schema")
    context = {"slots": slots(prompt)}
    texts = [fake_reply(None if malformed else schema, rng, context) for _ in range(request.get("n", 1))]
    choices = [
        {"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        for index, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": len(prompt) // 4, "completion_tokens": tokens * len(texts)}
    return orjson.dumps({"id": "mock", "object": "chat.completion", "choices": choices, "usage": usage})


def slots(prompt: str) -> dict[str, int]:
    """Guess from a prompt of ours how long texts must be to pass the kinds' checks, and make them hardly longer."""
    least = max((int(number) for number in LEAST.findall(prompt)), default=0)
    length = {"max_words": 10} if SHORT.search(prompt) else {"min_words": max(20, min(least // 2 + 1, 100))}
    return {"query_max_words": 8, **length}


async def serve(options: argparse.Namespace) -> None:
    """Listen until killed."""
    account, rng = Account(), random.Random(options.seed)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Endpoint(options, account, rng), "127.0.0.1", options.port, backlog=1024)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--latency-ms", type=float, default=50)
    parser.add_argument("--tokens", type=int, default=120, help="of one answer, as its usage says")
    parser.add_argument("--spread", type=float, default=0, help="of --tokens, by which an answer is longer or shorter")
    parser.add_argument("--share-malformed", type=float, default=0, help="of answers that follow no schema")
    parser.add_argument("--share-429", type=float, default=0)
    parser.add_argument("--share-500", type=float, default=0)
    parser.add_argument("--share-drop", type=float, default=0, help="of answers closed in mid-body")
    parser.add_argument("--share-html", type=float, default=0, help="of answers that are a page with status 200")
    parser.add_argument("--retry-after", help="this header with every 429: seconds or an HTTP date")
    parser.add_argument("--capacity", type=int, default=0, help="more requests at once than this get a 429")
    parser.add_argument("--always", type=int, default=0, help="a status that every request gets, as 401 or 404")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with contextlib.suppress(ImportError, KeyboardInterrupt):
        import uvloop

        uvloop.run(serve(options))
        return
    asyncio.run(serve(options))


if __name__ == "__main__":
    main()
