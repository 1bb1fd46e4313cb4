"""Encode chat completion requests and decode responses, in OpenAI's wire format.

Everything an endpoint sends is hostile: a proxy's HTML, half a body, wrong types, lone surrogates, control characters.
"""

import codecs
import json
import re
from dataclasses import dataclass, field
from typing import Any

import orjson

from speed_ray.engines.base import TOP_LOGPROBS, Request, Sample
from speed_ray.engines.endpoint_errors import Refusal
from speed_ray.records import TokenLogprob

MAX_MESSAGE_CHARS = 200  # of an endpoint's own message, repeated in ours
FAILED = ("error", "abort", "insufficient_system_resource")  # finish reasons of an answer that broke off
FILTERED = ("content_filter", "safety", "recitation", "prohibited_content", "blocklist", "spii")  # the last: Gemini's
LEAST_LOGPROB = -1e5  # OpenAI's least is -9999; 1 is above all that rounding makes of a certain token's 0
CUT_OFF = ("max_tokens", "model_length")  # Gemini's and Mistral's "length"


@dataclass(slots=True)
class Dialect:
    """Holds what an endpoint was found to want: its name for the reply's limit, and the fields that it refuses."""

    length_field: str = "max_tokens"
    left_out: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Completion:
    """Holds the completion of a 200. Token counts are None where the endpoint reports none.

    `reasoning_tokens` are those of `output_tokens` that are thoughts.
    """

    samples: list[Sample]
    prompt_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int = 0


class NotACompletion(Exception):
    """Signals a success whose body is no chat completion, with the refusal and the token counts that it may hold.

    `begun` is set where it holds a part of an answer, which is then billed.
    """

    def __init__(
        self, refusal: Refusal | None = None, tokens: tuple[int | None, int | None] = (None, None), begun: bool = True
    ) -> None:
        super().__init__()
        self.refusal = refusal
        self.tokens = tokens
        self.begun = begun


def request_fields(
    request: Request, n: int, seed: int, dialect: Dialect, structured: bool, extra: dict[str, Any]
) -> dict[str, Any]:
    """Return the fields of a request beside `model` and `messages`. `extra` is the recipe's and goes over ours."""
    fields: dict[str, Any] = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        dialect.length_field: request.max_tokens,
        "seed": seed,
    }
    if n > 1:
        fields["n"] = n
    if request.logprobs == "first_token":
        fields |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
    if structured and request.schema is not None:
        schema = {"name": "reply", "strict": True, "schema": request.schema}
        fields["response_format"] = {"type": "json_schema", "json_schema": schema}
    return {name: value for name, value in fields.items() if name not in dialect.left_out} | extra


def request_body(model: str, request: Request, fields: dict[str, Any]) -> bytes:
    """Encode a request as JSON."""
    return orjson.dumps({"model": model, "messages": request.messages, **fields})


def parse_completion(raw: bytes) -> Completion:
    """Decode the body of a 200. Raises NotACompletion."""
    document = _parse(raw)
    tokens = _usage(document) if isinstance(document, dict) else (None, None)
    choices = document.get("choices") if isinstance(document, dict) else None
    if not isinstance(choices, list) or not choices:
        half = document is None and raw.lstrip().startswith((b"{", b"data:"))
        raise NotACompletion(_refusal_within(document), tokens, begun=half)
    if any(isinstance(choice, dict) and choice.get("finish_reason") in FAILED for choice in choices):
        raise NotACompletion(_refusal_within(choices[0]) or Refusal(502, "the provider failed"), tokens)
    prompt_tokens, output_tokens = tokens
    share, rest = divmod(output_tokens or 0, len(choices))  # an endpoint counts all samples together
    parsed = [_sample(choice, share + (position < rest)) for position, choice in enumerate(choices)]
    samples = [sample for sample in parsed if sample]
    if len(samples) < len(parsed):
        raise NotACompletion(None, tokens)
    if not output_tokens and any(sample.text for sample in samples):
        output_tokens = None  # no text is made of no token: this endpoint does not count
    return Completion(samples, prompt_tokens, output_tokens, min(_reasoning_tokens(document), output_tokens or 0))


def parse_refusal(status: int, raw: bytes) -> Refusal:
    """Decode the body of a response other than 200."""
    document = _parse(raw)
    if isinstance(document, list) and document:  # Gemini wraps its error into a list
        document = document[0]
    if not isinstance(document, dict):
        return Refusal(status, raw.decode(errors="replace"))
    inner = document.get("error", document)
    if not isinstance(inner, dict):
        return Refusal(status, str(inner))
    message = inner.get("message") or inner.get("detail") or raw.decode(errors="replace")
    metadata = inner.get("metadata")
    if isinstance(metadata, dict) and metadata.get("raw"):  # what a provider told OpenRouter
        message = f"{message}: {metadata['raw']}"
    code = " ".join(str(inner[name]) for name in ("code", "type", "param", "status") if inner.get(name))
    return Refusal(status, message if isinstance(message, str) else json.dumps(message), code)


def failed_generation(raw: bytes) -> str:
    """Return the text that did not fit its schema, which Groq sends with its refusal; "" where there is none."""
    document = _parse(raw)
    error = document.get("error") if isinstance(document, dict) else None
    text = error.get("failed_generation") if isinstance(error, dict) else None
    return text if isinstance(text, str) else ""


def sanitize_message(message: str, secrets: list[str]) -> str:
    """Make an endpoint's message safe to show: no API key, one line, printable, at most 200 characters."""
    for secret in secrets:
        message = message.replace(secret, "[key]")
    message = "".join(character if character.isprintable() else " " for character in message[: 20 * MAX_MESSAGE_CHARS])
    return " ".join(message.split())[:MAX_MESSAGE_CHARS] or "(nothing)"


def _parse(raw: bytes) -> Any:
    """Parse a body: JSON, or a stream of it; None for what is neither."""
    raw = raw.removeprefix(codecs.BOM_UTF8)
    streamed = raw.lstrip().startswith((b"data:", b"event:", b": "))  # the last begins a comment
    return _joined(raw) if streamed else _json(raw)


def _json(raw: bytes) -> Any:
    """Parse JSON leniently: orjson rejects lone surrogates (half an emoji), which would recur on every try."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(raw.decode(errors="replace"))
    except (ValueError, RecursionError):
        return None


def _joined(raw: bytes) -> dict[str, Any] | None:
    """Join the chunks of an endpoint that streams its answer unasked into one completion."""
    lines = [line.removeprefix(b"data:").strip() for line in raw.splitlines() if line.startswith(b"data:")]
    chunks = [_json(line) for line in lines if line != b"[DONE]"]
    joined: dict[str, Any] = {}
    texts: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        if not isinstance(chunk, dict) or not isinstance(chunk.get("choices") or [], list):
            return None
        joined |= {name: value for name, value in chunk.items() if value and name != "choices"}
        for choice in chunk.get("choices") or ():
            delta = _message(choice, "delta")
            if delta is None:
                return None
            index = choice.get("index") if isinstance(choice.get("index"), int) else 0
            whole = texts.setdefault(index, {"message": {"content": ""}, "finish_reason": None})
            whole["message"]["content"] += _text(delta.get("content")) or ""
            whole["finish_reason"] = choice.get("finish_reason") or whole["finish_reason"]
    if joined.get("error") or b"[DONE]" not in lines:
        for whole in texts.values():
            whole["finish_reason"] = whole["finish_reason"] or "error"  # it broke off
    return joined | {"choices": [texts[index] for index in sorted(texts)]}


def _refusal_within(document: Any) -> Refusal | None:
    """Read the error that a 200 or a choice holds, as OpenRouter sends one; its code counts as the status."""
    error = document.get("error") if isinstance(document, dict) else None
    if not error:
        return None
    found = parse_refusal(500, orjson.dumps({"error": error}))
    code = error.get("code") if isinstance(error, dict) else None
    status = int(str(code)) if re.fullmatch("[45][0-9]{2}", str(code)) else 500
    return Refusal(status, found.message, found.code)


def _sample(choice: Any, output_tokens: int) -> Sample | None:
    """Read one choice; None where it holds no message."""
    message = _message(choice, "message")
    finished = _finish_reason(choice.get("finish_reason")) if isinstance(choice, dict) else ""
    if finished == "content_filter" and message is None:
        return Sample("", finished, output_tokens)
    if message is None:
        return None
    text = _text(message.get("content"))
    if text is None:
        return None
    if not text and message.get("refusal"):
        return Sample(str(message["refusal"]), "refusal", output_tokens)
    if not text.isascii():
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return Sample(text, finished, output_tokens, _first_token_logprobs(choice.get("logprobs")))


def _first_token_logprobs(said: Any) -> list[TokenLogprob]:
    """Read the likeliest first tokens of a choice, none where it does not tell them."""
    places = said.get("content") if isinstance(said, dict) else None
    first = places[0] if isinstance(places, list) and places else None
    likely = first.get("top_logprobs") if isinstance(first, dict) else None
    found: list[TokenLogprob] = []
    for each in likely if isinstance(likely, list) else ():
        token, logprob = (each.get("token"), each.get("logprob")) if isinstance(each, dict) else (None, None)
        if isinstance(token, str) and isinstance(logprob, int | float) and LEAST_LOGPROB <= logprob < 1:
            found.append({"token": token, "logprob": float(logprob)})
    return found


def _message(choice: Any, name: str) -> dict[str, Any] | None:
    """Return a choice's `message`, or `delta`, or what stands for it: the `text` of OpenAI's legacy completions."""
    if not isinstance(choice, dict):
        return None
    if isinstance(choice.get("text"), str) and choice.get(name) is None:
        return {"content": choice["text"]}
    return choice[name] if isinstance(choice.get(name), dict) else None


def _finish_reason(said: Any) -> str:
    """Return a finish reason in OpenAI's words: Gemini says "SAFETY", or "content_filter: RECITATION"."""
    reason = str(said or "stop").lower()
    if reason.startswith(FILTERED):
        return "content_filter"
    return "length" if reason in CUT_OFF else reason


def _text(content: Any) -> str | None:
    """Return a message's text: a string, or the text among parts such as Mistral's and Anthropic's thoughts."""
    if not content:
        return ""  # None when filtered, refused, or all thought
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    parts = [part for part in content if isinstance(part, dict) and part.get("type") in ("text", "output_text")]
    return "".join(part["text"] for part in parts if isinstance(part.get("text"), str))


def _usage(document: dict[str, Any]) -> tuple[int | None, int | None]:
    """Read prompt and output tokens. xAI and Gemini count thoughts in `total_tokens` alone."""
    usage = document.get("usage")
    if not isinstance(usage, dict):
        return None, None
    prompt, output, total = (_count(usage.get(f"{name}_tokens")) for name in ("prompt", "completion", "total"))
    if prompt is None or output is None:
        return None, None
    return prompt, max(output, (total or 0) - prompt)


def _reasoning_tokens(document: dict[str, Any]) -> int:
    """Read how many of the output tokens are thoughts: told by name, or counted in `total_tokens` alone."""
    usage = document.get("usage")
    if not isinstance(usage, dict):
        return 0
    details = usage.get("completion_tokens_details")
    told = _count(details.get("reasoning_tokens")) if isinstance(details, dict) else None
    prompt, output, total = (_count(usage.get(f"{name}_tokens")) or 0 for name in ("prompt", "completion", "total"))
    return told or max(0, total - prompt - output)


def _count(value: Any) -> int | None:
    return (
        int(value) if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**31 else None
    )
