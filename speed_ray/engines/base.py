"""What every engine speaks: one request in, one reply out, many at once."""

from dataclasses import dataclass, field
from typing import Any, Protocol

Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": text}


@dataclass(frozen=True)
class Request:
    """One prompt with all that decides its answer.

    `facts` is what the prompt was rendered from (stage, kind, topic, task, slots): a scripted engine answers from it,
    a real model never sees it. `schema` is a JSON schema that the reply must follow; `adapter` names a LoRA.
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
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """One of the n texts of a reply. `finish_reason` is "stop" or "length" (cut at `max_tokens`)."""

    text: str
    finish_reason: str
    output_tokens: int


@dataclass(frozen=True)
class Reply:
    """What came back: n samples, the prompt's length in tokens, the seconds from sending to the last token."""

    samples: list[Sample]
    prompt_tokens: int
    seconds: float


@dataclass(frozen=True)
class Load:
    """What an engine is at: requests it answers, requests that wait for room; prompt tokens so far, and how many of
    them its prefix cache held."""

    running: int
    waiting: int
    prompt_tokens: int = 0
    cached_tokens: int = 0


class PromptTooLong(Exception):
    """The prompt does not fit the model's window: the row is rejected, the engine goes on."""


class EngineDead(Exception):
    """The engine cannot answer any more: its actor must die so that Ray starts another. Never a row's fault."""


class FatalEngineError(Exception):
    """No retry can help (401, 404, a template that fails): the job stops with this message, a user's to put right."""


class BudgetExhausted(FatalEngineError):
    """The recipe's budget holds no further call: the job stops, and goes on once the budget is raised."""


class Engine(Protocol):
    """An engine answers `in_flight` requests at once; callers keep about that many waiting.

    `paid` engines have every reply journalled within the attempt, so that a crash never pays twice for one answer.
    """

    model: str
    in_flight: int
    paid: bool

    async def start(self) -> None:
        """Load weights or open connections. Raises UserError when the recipe is at fault."""

    async def generate(self, request: Request) -> Reply:
        """Answer, retrying transient faults for as long as it takes. Raises the three exceptions above only."""

    def load(self) -> Load:
        """Say what it is at; cheap, and asked every few seconds."""

    async def close(self) -> None:
        """Give everything back."""
