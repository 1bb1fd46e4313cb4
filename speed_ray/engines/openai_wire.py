"""Encode chat completion requests and decode responses, in OpenAI's wire format.

Everything an endpoint sends is hostile: a proxy's HTML, half a body, wrong types, lone surrogates, control characters.
"""

import json
from dataclasses import dataclass
from typing import Any

import orjson

from speed_ray.engines.base import Request, Sample

MAX_MESSAGE_CHARS = 200  # of an endpoint's own message, repeated in ours


@dataclass(frozen=True, slots=True)
class Completion:
    """Holds the completion of a 200. Token counts are None where the endpoint reports none."""

    samples: list[Sample]
    prompt_tokens: int | None
    output_tokens: int | None


class NotACompletion(Exception):
    """Signals a 200 whose body is no chat completion."""


def request_body(model: str, request: Request, n: int, seed: int, length_field: str, structured: bool) -> bytes:
    """Encode a request as JSON. `length_field` is "max_tokens" or "max_completion_tokens"."""
    fields: dict[str, Any] = {
        "model": model,
        "messages": request.messages,
        "temperature": request.temperature,
        "top_p": request.top_p,
        length_field: request.max_tokens,
        "seed": seed,
    }
    if n > 1:
        fields["n"] = n
    if structured and request.schema is not None:
        schema = {"name": "reply", "strict": True, "schema": request.schema}
        fields["response_format"] = {"type": "json_schema", "json_schema": schema}
    return orjson.dumps(fields)


def parse_completion(raw: bytes) -> Completion:
    """Decode the body of a 200. Raises NotACompletion."""
    document = _parse(raw)
    choices = document.get("choices") if isinstance(document, dict) else None
    if not isinstance(choices, list) or not choices:
        raise NotACompletion
    prompt_tokens, output_tokens = _usage(document)
    share, rest = divmod(output_tokens or 0, len(choices))  # an endpoint counts all samples together
    samples = [_sample(choice, share + (position < rest)) for position, choice in enumerate(choices)]
    return Completion(samples, prompt_tokens, output_tokens)


def error_message(raw: bytes) -> tuple[str, str]:
    """Decode the body of an error response into (message, error code or "")."""
    document = _parse(raw)
    if not isinstance(document, dict):
        return raw.decode(errors="replace"), ""
    inner = document.get("error", document)
    if not isinstance(inner, dict):
        return str(inner), ""
    message = inner.get("message") or inner.get("detail") or raw.decode(errors="replace")
    return str(message), str(inner.get("code") or inner.get("type") or "")


def sanitize_message(message: str, secret: str | None) -> str:
    """Make an endpoint's message safe to show: no API key, one line, printable, at most 200 characters."""
    if secret:
        message = message.replace(secret, "[key]")
    message = "".join(character if character.isprintable() else " " for character in message[: 20 * MAX_MESSAGE_CHARS])
    return " ".join(message.split())[:MAX_MESSAGE_CHARS] or "(nothing)"


def _parse(raw: bytes) -> Any:
    """Parse JSON leniently: orjson rejects lone surrogates (half an emoji), which would recur on every try."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(raw.decode(errors="replace"))
    except (ValueError, RecursionError):
        return None


def _sample(choice: Any, output_tokens: int) -> Sample:
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise NotACompletion
    text = message.get("content") or ""  # None when filtered or refused
    if not isinstance(text, str):
        raise NotACompletion
    if not text.isascii():
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return Sample(text, str(choice.get("finish_reason") or "stop"), output_tokens)


def _usage(document: dict[str, Any]) -> tuple[int | None, int | None]:
    usage = document.get("usage")
    if not isinstance(usage, dict):
        return None, None
    prompt, output = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if isinstance(prompt, int) and isinstance(output, int) and prompt >= 0 and output >= 0:
        return prompt, output
    return None, None
