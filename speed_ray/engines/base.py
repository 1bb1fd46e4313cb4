"""Define the engine protocol: async requests in, replies out, many at once."""

from dataclasses import dataclass, field
from typing import Any, Protocol, TypedDict

from speed_ray.records import Logprobs, Message, TokenLogprob

TOP_LOGPROBS = 20  # of a first token: the most that OpenAI and vLLM tell


class PromptContext(TypedDict, total=False):
    """The values that a prompt was rendered from. Which of them there are depends on the stage."""

    stage: str
    kind: str
    topic: str
    task: str
    slots: dict[str, Any]
    language: str
    ask: int  # how many tasks a brainstorm prompt asks for
    fields: dict[str, str]  # of the example that is to be revised
    example: str  # the same as JSON text
    candidates: list[dict[str, str]]  # in the order in which a judge is shown them
    passage: str  # that a grounded kind is written about, with its title
    neighbour: str  # a passage near to that one, which what is written is not to fit
    order: list[int]  # of each shown candidate, its index in the list before it was shuffled


@dataclass(frozen=True)
class Request:
    """Holds one prompt with all settings that determine its reply.

    `context` holds the values that the prompt was rendered from: a stage parses the reply by them and a scripted
    engine answers from them; a real model never sees them. `schema` is a JSON schema that the reply must follow;
    `adapter` names a LoRA.

    `logprobs` asks for log-probabilities. With "prompt" the messages are one plain text, without a chat template, and
    each of its tokens is told, but for the first where the tokenizer puts none before it. With "first_token" the
    `TOP_LOGPROBS` likeliest first tokens of the reply are told.
    """

    row_id: str
    messages: list[Message]
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 800
    seed: int = 0
    schema: dict[str, Any] | None = None
    adapter: str | None = None
    logprobs: Logprobs | None = None
    context: PromptContext = field(default_factory=PromptContext)


@dataclass(frozen=True)
class Sample:
    """Holds one of a reply's n texts. `finish_reason` is "stop", "length" (cut at `max_tokens`),
    "content_filter" or "refusal", where a filter or the model itself refused to answer. `logprobs` are those that the
    request asked for, natural logarithms; empty where it asked for none, or the engine does not tell.
    """

    text: str
    finish_reason: str
    output_tokens: int
    logprobs: list[TokenLogprob] = field(default_factory=list)


@dataclass(frozen=True)
class Reply:
    """Holds n samples, the prompt's length in tokens, and the seconds from sending to the last token."""

    samples: list[Sample]
    prompt_tokens: int
    seconds: float
    cached_tokens: int = 0  # of the prompt's, whose state the engine had from another prompt
    reasoning_tokens: int = 0  # of the samples' output: thoughts, which no text shows


@dataclass(frozen=True)
class Load:
    """Counts an engine's running and waiting requests, and its prompt tokens so far with those cached as prefixes."""

    running: int
    waiting: int
    prompt_tokens: int = 0
    cached_tokens: int = 0


class RequestRefused(Exception):
    """Signals a request that this engine will never answer: the row is rejected for `reason`, the engine goes on."""

    reason = "refused"


class PromptTooLong(RequestRefused):
    """Signals a prompt beyond the model's context window."""

    reason = "prompt_too_long"


class TooLargeForEndpoint(RequestRefused):
    """Signals one request that is larger than what an endpoint allows in a minute."""

    reason = "too_large_for_endpoint"


class EndpointFailsOnRow(RequestRefused):
    """Signals a request on which an endpoint failed again and again while it answered others."""

    reason = "endpoint_error"


class EngineDead(Exception):
    """Signals a dead engine: its actor must exit so that Ray starts another. Never a row's fault."""


class FatalEngineError(Exception):
    """Signals an error that no retry can fix (401, 404, a failing chat template): the job stops with this message."""


class BudgetExhausted(FatalEngineError):
    """Signals an exhausted budget: the job stops, and resumes once the budget is raised."""


class Engine(Protocol):
    """Answers `in_flight` requests concurrently; callers keep about twice as many waiting."""

    model: str
    in_flight: int

    async def start(self) -> None:
        """Load weights or open connections. Raises UserError when the recipe is at fault."""

    async def generate(self, request: Request) -> Reply:
        """Answer one request, retrying transient faults for as long as it takes. Raises only the exceptions above."""

    def load(self) -> Load:
        """Report the current load; called every few seconds, so it must be cheap."""

    async def close(self) -> None:
        """Release all resources."""
