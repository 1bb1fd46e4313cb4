"""Ask any OpenAI-compatible chat endpoint, with many requests in flight, retries and a hard budget.

A transient fault (429, 5xx, a cut connection, a page of HTML) is retried for as long as it takes and never becomes
data; a permanent one (a wrong key, a wrong model, a spent budget) stops the job at once and says which recipe key to
change; a row on which the endpoint fails while it answers others is rejected. Plain aiohttp, because the `openai`
library costs 1.38 s of CPU for 1,000 calls where aiohttp costs 0.17.
"""

import asyncio
import itertools
import logging
import random
import time
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import orjson
import yarl

from speed_ray.engines import openai_wire
from speed_ray.engines.base import (
    TOP_LOGPROBS,
    EndpointFailsOnRow,
    FatalEngineError,
    Load,
    PromptTooLong,
    Reply,
    Request,
    Sample,
    TooLargeForEndpoint,
)
from speed_ray.engines.budget import Ledger
from speed_ray.engines.endpoint import check_endpoint, parse_retry_after, proxy_of, read_rate_limits, request_headers
from speed_ray.engines.endpoint_errors import BILLED, OTHER, Refusal, Rule, affordable_tokens, explain_refusal
from speed_ray.engines.openai_wire import Dialect
from speed_ray.engines.throttle import Throttle
from speed_ray.errors import UserError
from speed_ray.recipes.engine_settings import OpenAIEngine
from speed_ray.storage.spending import Usage

log = logging.getLogger(__name__)

CONNECT_RETRIES = (0.0, 2.0, 5.0)  # seconds before each attempt to connect
FIRST_BACKOFF = 0.5  # seconds; doubled with each try, drawn with full jitter
LONGEST_BACKOFF = 60.0
REPORT_EVERY = 60.0  # seconds between two lines about the same trouble

MAX_NON_COMPLETIONS = 20  # a proxy's error page is transient and comes among completions; a website sends nothing else
MAX_ROW_FAULTS = 8  # on one row while others are answered,
FEW_ROWS, ROW_FAULT_SECONDS = 4, 600.0  # or for so long where only so few are left: all rows failing is an outage
MAX_ANSWER_BYTES = 64 << 20
RATE_LIMITED = {429, 498, 503, 529}
PROXY_REFUSES = {403, 407}
TEMPLATE_TOKENS = 16  # the most that a chat template adds around one message


@dataclass(frozen=True, slots=True)
class _Answer:
    samples: list[Sample]
    prompt_tokens: int
    spent: Usage
    seconds: float
    reasoning_tokens: int = 0


class _Fault(Exception):
    """Signals a transient failure of one call, which was charged `spent`.

    `row` is set where the request itself may be what the endpoint fails on.
    """

    def __init__(self, reason: str, retry_after: float = 0.0, spent: Usage | None = None, row: bool = False) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.spent = spent or Usage()
        self.row = row


class OpenAI:
    """Calls `<base_url>/chat/completions`, each call covered by the ledger."""

    def __init__(self, config: OpenAIEngine, ledger: Ledger, key: str = "teacher") -> None:
        """Configure a client; `key` is its key in the recipe ("teacher"), for messages."""
        self.model = config.model
        self.in_flight = config.max_concurrency
        self.throttle = Throttle(config.max_concurrency)
        self._config = config
        self._key = key
        self.ledger = ledger
        self._dialect = Dialect()
        self._secrets: list[str] = []
        self.rate_limits: dict[str, str] = {}  # as the endpoint's first answer told them, by the header's name
        self._open = self._answers = self._faults = 0  # the last two since the last report
        self._completions = self._non_completions = 0  # answers that are a completion, and that are none
        self._warned_of_usage = False

    async def start(self) -> None:
        """Read the API key and open a session without sending a prompt. Raises UserError for a recipe's mistake."""
        self._url = check_endpoint(self._config, self._key)
        headers, self._secrets = request_headers(self._config, self._key)
        self._session = aiohttp.ClientSession(
            headers=headers,
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=self._config.timeout, sock_connect=30),
            cookie_jar=aiohttp.DummyCookieJar(),
            proxy=proxy_of(self._url),
        )
        await self._check_reachable()
        self._refusal: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._watching = asyncio.create_task(self._watch())

    async def _check_reachable(self) -> None:
        """Open one TCP connection to the endpoint: a wrong address would else be retried silently."""
        target = yarl.URL(proxy_of(self._url) or self._url)
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

    @property
    def refused_fields(self) -> frozenset[str]:
        """Return the optional fields of a request that the endpoint was found to refuse."""
        return frozenset(self._dialect.left_out)

    def load(self) -> Load:
        """Count calls in flight, and requests that wait for the throttle, the budget or a retry."""
        return Load(self.throttle.active, max(0, self._open - self.throttle.active))

    async def close(self) -> None:
        """Close every connection, and give back what is reserved for no call."""
        self._watching.cancel()
        await self.ledger.give_back()
        await self._session.close()

    async def generate(self, request: Request) -> Reply:
        """Return n samples, calling again for those that an endpoint which ignores `n` leaves out."""
        samples: list[Sample] = []
        prompt_tokens, seconds, thoughts = 0, 0.0, 0
        self._open += 1
        try:
            while len(samples) < request.n:
                answer = await self._answer(request, request.n - len(samples), request.seed + len(samples))
                samples += answer.samples
                prompt_tokens += answer.prompt_tokens
                seconds += answer.seconds
                thoughts += answer.reasoning_tokens
        finally:
            self._open -= 1
        return Reply(samples[: request.n], prompt_tokens, seconds, reasoning_tokens=thoughts)

    async def _answer(self, request: Request, n: int, seed: int) -> _Answer:
        """Call until a completion comes back. Between two tries neither a slot nor budget is reserved."""
        most = _upper_bound(request, n, self._config)
        row_faults, began, completions = 0, time.monotonic(), self._completions
        for trial in itertools.count():
            await self.ledger.reserve(most)
            spent = Usage()
            try:
                async with self.throttle:
                    self._stop_if_refused()
                    answer = await self._call(request, n, seed, most)
                spent = answer.spent
                return answer
            except _Fault as fault:
                spent = fault.spent
                row_faults += fault.row
                others = self._completions > completions
                alone = self._completions and self._open <= FEW_ROWS and time.monotonic() - began > ROW_FAULT_SECONDS
                if row_faults >= MAX_ROW_FAULTS and (others or alone):
                    raise EndpointFailsOnRow(f"after {row_faults} tries: {fault}") from None
                delay = _delay(trial, fault.retry_after)
                self._report(fault, request.row_id, trial)
            finally:
                self.ledger.settle(most, spent)
            await asyncio.wait([self._refusal], timeout=delay)
            self._stop_if_refused()
        raise AssertionError("itertools.count() ended")

    async def _call(self, request: Request, n: int, seed: int, most: Usage) -> _Answer:
        """Send one request. Raises _Fault, RequestRefused, FatalEngineError."""
        config = self._config
        fields = openai_wire.request_fields(
            request, n, seed, self._dialect, config.structured_outputs, config.extra_body
        )
        began = time.perf_counter()
        status, retry_after, raw = await self._exchange(openai_wire.request_body(self.model, request, fields), most)
        seconds = time.perf_counter() - began
        self.throttle.record_response(rate_limited=status in RATE_LIMITED)
        if succeeded := 200 <= status < 300:
            try:
                return self._parse_answer(raw, most, seconds)
            except openai_wire.NotACompletion as none:
                spent = _told(none.tokens) or (self._unknown(most) if none.begun else Usage(1))
                if none.refusal is None:
                    raise self._no_completion(raw, spent) from None
                refusal = none.refusal
                self.throttle.record_response(rate_limited=refusal.status in RATE_LIMITED)
        else:
            refusal, spent = openai_wire.parse_refusal(status, raw), most if status in BILLED else Usage()
        rule = explain_refusal(refusal)
        if rule.meaning == "limit":
            room = affordable_tokens(refusal.message)
            if room is None or room >= request.max_tokens:
                raise PromptTooLong(self._sanitized(refusal.message))
            return await self._call(replace(request, max_tokens=room), n, seed, most)
        if rule.meaning == "field" and self._adapt(rule.reason, fields, refusal):
            return await self._call(request, n, seed, most)
        if rule.meaning == "reply":
            return _Answer([Sample(openai_wire.failed_generation(raw), "stop", 0)] * n, 0, most, seconds)
        if rule.reason == "filtered":
            if not succeeded:  # Azure bills the prompt
                spent = replace(self._unknown(most), output_tokens=0)
            return _Answer([Sample("", "content_filter", 0)] * n, 0, spent, seconds)
        raise self._failure(refusal, rule, retry_after, spent, within=succeeded)

    async def _exchange(self, body: bytes, most: Usage) -> tuple[int, float, bytes]:
        """Post one body; return the response's status, its Retry-After in seconds, and its bytes."""
        try:
            # Redirects are not followed: they would carry the key to another host.
            async with self._session.post(self._url, data=body, allow_redirects=False) as response:
                self.rate_limits = self.rate_limits or read_rate_limits(response.headers)
                raw = await response.content.read(MAX_ANSWER_BYTES)
                while not response.content.at_eof():
                    if len(raw) >= MAX_ANSWER_BYTES:
                        raise _Fault(f"an answer of more than {MAX_ANSWER_BYTES >> 20} MiB", spent=most, row=True)
                    raw += await response.content.read(MAX_ANSWER_BYTES)
                return response.status, parse_retry_after(response.headers), raw
        except aiohttp.ClientConnectorCertificateError as error:
            raise self._refuse(f"its certificate cannot be trusted ({self._sanitized(str(error))})") from None
        except aiohttp.ClientConnectorError as error:  # nothing was sent
            raise _Fault(self._sanitized(f"{type(error).__name__}: {error}")) from None
        except aiohttp.ClientHttpProxyError as error:  # likewise; its text would show the proxy's password
            said = f"HTTP {error.status}: {self._sanitized(error.message)}"
            if error.status in PROXY_REFUSES:
                raise self._refuse(f"{self._advice('blocked')}\nThe proxy said: {said}") from None
            raise _Fault(f"the proxy said {said}") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            sent = not isinstance(error, aiohttp.ConnectionTimeoutError)  # and so it was probably billed
            reason = self._sanitized(f"{type(error).__name__}: {error}")
            raise _Fault(reason, spent=most if sent else None, row=sent) from None

    def _parse_answer(self, raw: bytes, most: Usage, seconds: float) -> _Answer:
        completion = openai_wire.parse_completion(raw)
        self._answers += 1
        self._completions += 1
        spent = _told((completion.prompt_tokens, completion.output_tokens))
        if spent:
            return _Answer(completion.samples, spent.prompt_tokens, spent, seconds, completion.reasoning_tokens)
        if not self._warned_of_usage:
            self._warned_of_usage = True
            log.warning("%s does not say how many tokens its answers use: they are recorded as 0", self._url)
        return _Answer(completion.samples, 0, self._unknown(most), seconds)

    def _unknown(self, most: Usage) -> Usage:
        """Return what a call is charged that does not say: a budget in tokens or dollars has to hold all the same."""
        return most if self.ledger.counts_tokens else Usage(1)

    def _no_completion(self, raw: bytes, spent: Usage) -> Exception:
        """Classify a 200 that is no completion: a proxy's transient page, or an address that is no endpoint."""
        message = self._sanitized(raw.decode(errors="replace"))
        self._non_completions += 1
        if self._completions or self._non_completions < MAX_NON_COMPLETIONS:
            return _Fault(f"HTTP 200 that is no chat completion: {message}", spent=spent, row=True)
        return self._refuse(
            f"none of its first {MAX_NON_COMPLETIONS} answers is a chat completion: "
            f"check {self._key}.base_url\nIt said: {message}"
        )

    def _adapt(self, name: str, sent: dict[str, Any], refusal: Refusal) -> bool:
        """Leave out a field that the endpoint refuses, or rename it. Returns False where it was not among the sent."""
        if name == "max_tokens":
            if name not in sent:
                return False
            self._dialect.length_field = "max_completion_tokens"  # OpenAI's reasoning models know only this name
            return True
        if name not in sent or name in self._config.extra_body:
            return False
        if name not in self._dialect.left_out:
            self._dialect.left_out.add(name)
            log.warning("%s: asked without %r from now on: %s", self._url, name, self._sanitized(refusal.message))
        return True

    def _failure(self, refusal: Refusal, rule: Rule, retry_after: float, spent: Usage, within: bool) -> Exception:
        """Turn a refusal into a fault to retry, the reject of a row, or an error that stops the job.

        `within` is set for one within a 200, where a provider behind the endpoint speaks: it seldom stops a job.
        """
        shown = self._sanitized(refusal.message)
        said = f"HTTP {refusal.status}: {shown}"
        # Where others were answered, a refusal that no rule knows concerns this row: its words may be in any language.
        # So does a firewall's: it looks for words that attacks have.
        unknown = (rule is OTHER and refusal.status in (400, 422)) or rule.reason == "blocked"
        unknown = unknown and self._completions > 0
        if rule.meaning == "later" or unknown or (within and rule.reason not in ("credit", "key")):
            return _Fault(said, retry_after, spent, row=refusal.status not in RATE_LIMITED)
        if rule.meaning == "row":
            return (PromptTooLong if rule.reason == PromptTooLong.reason else TooLargeForEndpoint)(shown)
        return self._refuse(f"{self._advice(rule.reason)}\nIt said: {said}")

    def _advice(self, reason: str) -> str:
        config, key = self._config, self._key
        if reason == "credit":
            return "the account has no credit left"
        if reason == "key" and config.api_key_env is None:
            return f"it wants a key: let {key}.api_key_env name the environment variable that holds one"
        if reason == "key":
            return f"it does not accept the key in {config.api_key_env} (named by {key}.api_key_env)"
        if reason == "blocked":
            return (
                "a firewall or proxy on the way refuses us, not the endpoint itself: let this machine pass there, or "
                f"change http_proxy, https_proxy or no_proxy; else check {key}.base_url"
            )
        if reason == "model":
            return f"it has no model {config.model!r}: check {key}.model"
        if reason == "address":
            return f"it has no chat completions there: check {key}.base_url (it often ends in /v1)"
        if reason == "logprobs":
            return (
                f"it does not tell the {TOP_LOGPROBS} likeliest first tokens of a reply, by which it is to judge: let "
                f"{key}.extra_body.top_logprobs ask for fewer, if it tells some, or judge by another model"
            )
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
        return openai_wire.sanitize_message(message, self._secrets)

    def _report(self, fault: _Fault, row_id: str, trial: int) -> None:
        """Log the first fault of each minute and count the others."""
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


def _upper_bound(request: Request, n: int, config: OpenAIEngine) -> Usage:
    """Return an upper bound of one call's usage: no tokenizer makes more tokens than a text has bytes."""
    prompt = sum(len(message["content"].encode()) + TEMPLATE_TOKENS for message in request.messages)
    if config.structured_outputs and request.schema is not None:
        prompt += len(orjson.dumps(request.schema))  # OpenAI bills it as prompt
    own = {name: value for name, value in config.extra_body.items() if isinstance(value, int)}
    limit = max(request.max_tokens, own.get("max_tokens", 0), own.get("max_completion_tokens", 0))
    return Usage(1, prompt, limit * max(n, own.get("n", 0)))


def _told(tokens: tuple[int | None, int | None]) -> Usage | None:
    """Return one call's usage as the endpoint told it, None where it did not."""
    prompt, output = tokens
    return None if prompt is None or output is None else Usage(1, prompt, output)


def _delay(trial: int, retry_after: float) -> float:
    """Return the seconds until the next try: at least Retry-After, else exponential backoff with full jitter."""
    backoff = random.uniform(0, min(LONGEST_BACKOFF, FIRST_BACKOFF * 2 ** min(trial, 16)))
    return max(backoff, retry_after * random.uniform(1, 1.1))
