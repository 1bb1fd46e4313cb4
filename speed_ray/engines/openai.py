"""Ask any OpenAI-compatible chat endpoint, with many requests in flight, retries and a hard budget.

A transient fault (429, 5xx, a cut connection, a page of HTML) is retried for as long as it takes and never becomes
data; a permanent one (a wrong key, a wrong model, a spent budget) stops the job at once and says which recipe key to
change. Plain aiohttp, because the `openai` library costs 1.38 s of CPU for 1,000 calls where aiohttp costs 0.17.
"""

import asyncio
import email.utils
import itertools
import logging
import os
import random
import re
import time
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime

import aiohttp
import yarl

from speed_ray.engines import openai_wire
from speed_ray.engines.base import FatalEngineError, Load, PromptTooLong, Reply, Request, Sample
from speed_ray.engines.budget import Ledger, Usage
from speed_ray.engines.throttle import Throttle
from speed_ray.errors import UserError
from speed_ray.recipes.engine_settings import OpenAIEngine

log = logging.getLogger(__name__)

CONNECT_RETRIES = (0.0, 2.0, 5.0)  # seconds before each attempt to connect
FIRST_BACKOFF = 0.5  # seconds; doubled with each try, drawn with full jitter
LONGEST_BACKOFF = 60.0
LONGEST_RETRY_AFTER = 86_400.0
REPORT_EVERY = 60.0  # seconds between two lines about the same trouble

MAX_NON_COMPLETIONS = 20  # a proxy's error page is transient and comes among completions; a website sends nothing else
RETRYABLE = {408, 409, 425, 429}  # and every 5xx
RATE_LIMITED = {429, 503, 529}
FILTERED = {"content_filter", "content_policy_violation", "data_inspection_failed", "invalid_prompt"}
TOO_LONG = re.compile(r"context.?length|context window|maximum (input|prompt) length|prompt is too long", re.I)
TEMPLATE_TOKENS = 16  # the most that a chat template adds around one message


@dataclass(frozen=True, slots=True)
class _Answer:
    samples: list[Sample]
    prompt_tokens: int
    spent: Usage
    seconds: float


class _Fault(Exception):
    """Signals a transient failure of one call. `lost`: it was probably billed, but its answer did not arrive."""

    def __init__(self, reason: str, retry_after: float = 0.0, lost: bool = False) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.lost = lost


class OpenAI:
    """Calls `<base_url>/chat/completions`. `spent` is the usage of earlier runs under the same budget."""

    paid = True

    def __init__(self, config: OpenAIEngine, spent: Usage, key: str = "teacher") -> None:
        """Configure a client; `key` is its key in the recipe ("teacher"), for messages."""
        self.model = config.model
        self.in_flight = config.max_concurrency
        self.throttle = Throttle(config.max_concurrency)
        self.retries = 0
        self._config = config
        self._key = key
        self._before = spent
        self._ledger = Ledger(config.budget, config.price, spent, key)
        self._length_field = "max_tokens"
        self._secret: str | None = None
        self._open = self._answers = self._faults = 0  # the last two since the last report
        self._non_completions, self._had_completion = (
            0,
            False,
        )  # answers that are no completion; whether there was one that is
        self._warned_of_usage = False

    @property
    def spent(self) -> Usage:
        """Return the usage, earlier runs included; lost answers count at their upper bound."""
        return self._ledger.spent

    @property
    def counters(self) -> dict[str, float]:
        """Return the totals of this client: calls, retries, prompt_tokens, output_tokens, dollars."""
        own = self.spent - self._before
        return {
            "calls": own.calls,
            "retries": self.retries,
            "prompt_tokens": own.prompt_tokens,
            "output_tokens": own.output_tokens,
            "dollars": own.dollars(self._config.price),
        }

    async def start(self) -> None:
        """Read the API key and open a session without sending a prompt. Raises UserError for a recipe's mistake."""
        config = self._config
        self._url = check_endpoint(config, self._key)
        self._secret = _secret(config.api_key_env, self._key)
        headers = {"Content-Type": "application/json", "User-Agent": "speed_ray"}
        if self._secret:
            headers["Authorization"] = f"Bearer {self._secret}"
        self._session = aiohttp.ClientSession(
            headers=headers,
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=config.timeout, sock_connect=30),
            cookie_jar=aiohttp.DummyCookieJar(),
            proxy=_proxy(self._url),
        )
        await self._check_reachable()
        self._refusal: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._watching = asyncio.create_task(self._watch())

    async def _check_reachable(self) -> None:
        """Open one TCP connection to the endpoint: a wrong address would else be retried silently."""
        target = yarl.URL(_proxy(self._url) or self._url)
        for wait in CONNECT_RETRIES:
            await asyncio.sleep(wait)
            try:
                async with asyncio.timeout(30):
                    _, writer = await asyncio.open_connection(target.host, target.port)
                writer.close()
                return
            except (OSError, TimeoutError) as error:
                reason = str(error) or "no answer within 30 s"
        await self._session.close()
        raise UserError(
            f"{self._key}.base_url: nobody answers at {self._config.base_url} ({reason}).\n"
            "Start the endpoint, or correct the address, and run the same command again."
        )

    def load(self) -> Load:
        """Count calls in flight, and requests that wait for the throttle, the budget or a retry."""
        return Load(self.throttle.active, max(0, self._open - self.throttle.active))

    async def close(self) -> None:
        """Close every connection."""
        self._watching.cancel()
        await self._session.close()

    async def generate(self, request: Request) -> Reply:
        """Return n samples, calling again for those that an endpoint which ignores `n` leaves out."""
        samples: list[Sample] = []
        prompt_tokens, seconds = 0, 0.0
        self._open += 1
        try:
            while len(samples) < request.n:
                answer = await self._answer(request, request.n - len(samples), request.seed + len(samples))
                samples += answer.samples
                prompt_tokens += answer.prompt_tokens
                seconds += answer.seconds
        finally:
            self._open -= 1
        return Reply(samples[: request.n], prompt_tokens, seconds)

    async def _answer(self, request: Request, n: int, seed: int) -> _Answer:
        """Call until a completion comes back. Between two tries neither a slot nor budget is reserved."""
        most = _upper_bound(request, n)
        for trial in itertools.count():
            await self._ledger.reserve(most)
            spent = Usage()
            try:
                async with self.throttle:
                    self._stop_if_refused()
                    answer = await self._call(request, n, seed, most)
                spent = answer.spent
                return answer
            except _Fault as fault:
                spent = most if fault.lost else Usage()
                delay = _delay(trial, fault.retry_after)
                self._report(fault, request.row_id, trial)
            finally:
                self._ledger.settle(most, spent)
            await asyncio.wait([self._refusal], timeout=delay)
            self._stop_if_refused()
        raise AssertionError("itertools.count() ended")

    async def _call(self, request: Request, n: int, seed: int, most: Usage) -> _Answer:
        """Send one request. Raises _Fault, PromptTooLong, FatalEngineError."""
        field = self._length_field
        sent = openai_wire.request_body(self.model, request, n, seed, field, self._config.structured_outputs)
        began = time.perf_counter()
        status, retry_after, raw = await self._exchange(sent)
        seconds = time.perf_counter() - began
        self.throttle.record_response(rate_limited=status in RATE_LIMITED)
        if status == 200:
            return self._parse_answer(raw, most, seconds)
        message, code = openai_wire.error_message(raw)
        if status == 400 and field == "max_tokens" and "max_completion_tokens" in message:
            self._length_field = "max_completion_tokens"  # OpenAI's reasoning models know only this name
            return await self._call(request, n, seed, most)
        if status == 400 and code in FILTERED:
            return _Answer([Sample("", "content_filter", 0)] * n, 0, Usage(1), seconds)
        raise self._failure(status, message, code, retry_after)

    async def _exchange(self, body: bytes) -> tuple[int, float, bytes]:
        """Post one body; return the response's status, its Retry-After in seconds, and its bytes."""
        status = None
        try:
            # Redirects are not followed: they would carry the key to another host.
            async with self._session.post(self._url, data=body, allow_redirects=False) as response:
                status = response.status
                return status, _retry_after(response.headers.get("Retry-After")), await response.read()
        except aiohttp.ClientConnectorCertificateError as error:
            raise self._refuse(f"its certificate cannot be trusted ({self._sanitized(str(error))})") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            late = isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ConnectionTimeoutError)
            raise _Fault(self._sanitized(f"{type(error).__name__}: {error}"), lost=late or status == 200) from None

    def _parse_answer(self, raw: bytes, most: Usage, seconds: float) -> _Answer:
        try:
            completion = openai_wire.parse_completion(raw)
        except openai_wire.NotACompletion:
            raise self._no_completion(self._sanitized(raw.decode(errors="replace"))) from None
        self._answers += 1
        self._had_completion = True
        if completion.prompt_tokens is not None and completion.output_tokens is not None:
            spent = Usage(1, completion.prompt_tokens, completion.output_tokens)
            return _Answer(completion.samples, completion.prompt_tokens, spent, seconds)
        if not self._warned_of_usage:
            self._warned_of_usage = True
            log.warning("%s does not say how many tokens its answers use: they are recorded as 0", self._url)
        # A budget in tokens or dollars still has to hold, so it is charged what the call could have used at most.
        return _Answer(completion.samples, 0, most if self._ledger.counts_tokens else Usage(1), seconds)

    def _no_completion(self, message: str) -> Exception:
        """Classify a 200 that is no completion: a proxy's transient page, or an address that is no endpoint."""
        self._non_completions += 1
        if self._had_completion or self._non_completions < MAX_NON_COMPLETIONS:
            return _Fault(f"HTTP 200 that is no chat completion: {message}")
        return self._refuse(
            f"none of its first {MAX_NON_COMPLETIONS} answers is a chat completion: "
            f"check {self._key}.base_url\nIt said: {message}"
        )

    def _failure(self, status: int, message: str, code: str, retry_after: float) -> Exception:
        """Classify a response other than 200: a fault to retry, a prompt too long, or an error that stops the job."""
        shown = self._sanitized(message)
        if status == 402 or code == "insufficient_quota":
            return self._refuse(f"the account has no credit left (HTTP {status}: {shown})")
        if status in RETRYABLE or status >= 500:
            return _Fault(f"HTTP {status}: {shown}", retry_after)
        if status in (400, 413, 422) and (code == "context_length_exceeded" or TOO_LONG.search(message)):
            return PromptTooLong(shown)
        return self._refuse(f"{self._advice(status, message, code)}\nIt said: HTTP {status}: {shown}")

    def _advice(self, status: int, message: str, code: str) -> str:
        config, key = self._config, self._key
        if status in (401, 403):
            if config.api_key_env is None:
                return f"it wants a key: let {key}.api_key_env name the environment variable that holds one"
            return f"it does not accept the key in {config.api_key_env} (named by {key}.api_key_env)"
        if "model" in code or re.search(r"model.{0,200}(not (be )?found|not exist|unknown)", message, re.I | re.S):
            return f"it has no model {config.model!r}: check {key}.model"
        if status == 404 or 300 <= status < 400:
            return f"it has no chat completions there: check {key}.base_url (it often ends in /v1)"
        if "response_format" in message or "json_schema" in message:
            return f"it cannot hold replies to a JSON schema: set {key}.structured_outputs to false"
        return f"it does not accept our requests, and would not accept them later: check {key} in the recipe"

    def _refuse(self, reason: str) -> FatalEngineError:
        """Stop every other call too, and return the exception with the reason."""
        if not self._refusal.done():
            self._refusal.set_result(f"{self._key}: the endpoint {self._url} refused: {reason}")
        return FatalEngineError(self._refusal.result())

    def _stop_if_refused(self) -> None:
        if self._refusal.done():
            raise FatalEngineError(self._refusal.result())

    def _sanitized(self, message: str) -> str:
        return openai_wire.sanitize_message(message, self._secret)

    def _report(self, fault: _Fault, row_id: str, trial: int) -> None:
        """Log the first fault of each minute and count the others."""
        self.retries += 1
        self._faults += 1
        if self._faults == 1:
            log.warning("%s: %s (row %s, try %d; trying again)", self._url, fault, row_id, trial + 1)

    async def _watch(self) -> None:
        """Log a line once a minute while calls fail or none is answered."""
        while True:
            await asyncio.sleep(REPORT_EVERY)
            if self._faults > 1 or (self._open and not self._answers):
                log.warning(
                    "%s: %d answers and %d faults within %.0f s; %d requests wait, %d are asked at most at once",
                    *(self._url, self._answers, self._faults, REPORT_EVERY, self._open, self.throttle.limit),
                )
            self._answers = self._faults = 0


def check_endpoint(config: OpenAIEngine, key: str) -> yarl.URL:
    """Validate an endpoint's settings and return its URL. Raises UserError; `key` is its key in the recipe."""
    if config.budget.dollars is not None and config.price is None:
        raise UserError(f"{key}.budget.dollars needs {key}.price (dollars per million tokens)")
    return _url(config.base_url, key)


def _upper_bound(request: Request, n: int) -> Usage:
    """Return an upper bound of one call's usage: no tokenizer makes more tokens than a text has bytes."""
    prompt = sum(len(message["content"].encode()) + TEMPLATE_TOKENS for message in request.messages)
    return Usage(1, prompt, request.max_tokens * n)


def _delay(trial: int, retry_after: float) -> float:
    """Return the seconds until the next try: at least Retry-After, else exponential backoff with full jitter."""
    backoff = random.uniform(0, min(LONGEST_BACKOFF, FIRST_BACKOFF * 2 ** min(trial, 16)))
    return max(backoff, retry_after * random.uniform(1, 1.1))


def _retry_after(header: str | None) -> float:
    """Parse Retry-After (seconds or an HTTP date) into seconds; 0.0 when absent or unreadable."""
    if header is None:
        return 0.0
    try:
        seconds = float(header)
    except ValueError:
        try:
            date = email.utils.parsedate_to_datetime(header)
        except ValueError:
            return 0.0
        seconds = (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(seconds, LONGEST_RETRY_AFTER) if seconds > 0 else 0.0  # also for nan


def _url(base_url: str, key: str) -> yarl.URL:
    hint = f"{key}.base_url must look like https://host/v1, without a user name, password, key or query in it"
    try:
        url = yarl.URL(base_url.rstrip("/") + "/chat/completions")
    except ValueError:
        raise UserError(hint) from None
    if url.scheme not in ("http", "https") or not url.host or url.user or url.password or url.query_string:
        raise UserError(hint)
    return url


def _secret(variable: str | None, key: str) -> str | None:
    if variable is None:
        return None
    secret = os.environ.get(variable, "").strip()
    if not secret:
        raise UserError(f"{key}.api_key_env names the environment variable {variable}, which is not set")
    if not secret.isascii() or not secret.isprintable():
        raise UserError(f"the environment variable {variable} holds characters that no key has: copy the key again")
    return secret


def _proxy(url: yarl.URL) -> str | None:
    """Look up the environment's proxy for this endpoint once: aiohttp would do so for every call. Raises UserError."""
    assert url.host is not None
    proxy = None if urllib.request.proxy_bypass(url.host) else urllib.request.getproxies().get(url.scheme)
    if not proxy:
        return None
    try:
        named = yarl.URL(proxy if "://" in proxy else f"http://{proxy}")  # curl's form: proxy.corp:3128
    except ValueError:
        named = yarl.URL()
    if named.scheme not in ("http", "https") or not named.host:
        raise UserError(
            f"the environment variable {url.scheme}_proxy (or {url.scheme.upper()}_PROXY) names no proxy that speaks "
            "HTTP.\nWrite it as http://host:port, unset it, or name the endpoint's host in no_proxy."
        )
    return str(named)
