"""The wire format of OpenAI's chat completions: a request to bytes, an endpoint's bytes to samples or to an error.

Everything an endpoint sends is hostile: a proxy's HTML, half a body, wrong types, lone surrogates, control characters.
"""

import json
from dataclasses import dataclass
from typing import Any

import orjson

from speed_ray.engines.base import Request, Sample

SHOWN = 200  # characters of an endpoint's words that a message repeats


@dataclass(frozen=True, slots=True)
class Completion:
    """A 200 that holds an answer. Token counts are None where the endpoint does not tell them."""

    samples: list[Sample]
    prompt_tokens: int | None
    output_tokens: int | None


class NotACompletion(Exception):
    """A 200 whose body is something else."""


def request_body(model: str, request: Request, n: int, seed: int, length_field: str, structured: bool) -> bytes:
    """Write the request's JSON. `length_field` is "max_tokens", or what newer models call it."""
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
    """Read the body of a 200. Raises NotACompletion."""
    document = _parse(raw)
    choices = document.get("choices") if isinstance(document, dict) else None
    if not isinstance(choices, list) or not choices:
        raise NotACompletion
    prompt_tokens, output_tokens = _usage(document)
    share, rest = divmod(output_tokens or 0, len(choices))  # an endpoint counts all samples together
    samples = [_sample(choice, share + (position < rest)) for position, choice in enumerate(choices)]
    return Completion(samples, prompt_tokens, output_tokens)


def error_message(raw: bytes) -> tuple[str, str]:
    """Read the body of anything else: (what it says, its error code or "")."""
    document = _parse(raw)
    if not isinstance(document, dict):
        return raw.decode(errors="replace"), ""
    inner = document.get("error", document)
    if not isinstance(inner, dict):
        return str(inner), ""
    said = inner.get("message") or inner.get("detail") or raw.decode(errors="replace")
    return str(said), str(inner.get("code") or inner.get("type") or "")


def shown(said: str, secret: str | None) -> str:
    """Make an endpoint's words fit for a message: the key taken out, on one line, no control characters, not long."""
    if secret:
        said = said.replace(secret, "[key]")
    said = "".join(character if character.isprintable() else " " for character in said[: 20 * SHOWN])
    return " ".join(said.split())[:SHOWN] or "(nothing)"


def _parse(raw: bytes) -> Any:
    """Parse JSON, also where a model wrote half of an emoji: orjson refuses that, and it would recur on every try."""
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
