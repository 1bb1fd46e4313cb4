"""Decide what an endpoint's refusal means: one table for OpenAI, Azure, vLLM, llama.cpp, TGI, Gemini and the others.

A refusal concerns this row alone (`row`), the moment (`later`), an optional field that this endpoint does not take
(`field`), a reply limit that is too large (`limit`), or every request that could follow (`stop`). The first line of
`RULES` whose status and words fit decides; tests hold each line against an answer that such an endpoint gave.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

Meaning = Literal["row", "later", "field", "limit", "reply", "stop"]

OPTIONAL_FIELDS = ("seed", "temperature", "top_p", "response_format", "n")  # a request may do without
BAD_REQUEST = frozenset({400, 403, 413, 422, 424, 500, 501})
BILLED = frozenset({408, 499, 502, 504, 520, 521, 522, 523, 524})  # a gateway gave up; what was behind it went on


@dataclass(frozen=True)
class Refusal:
    """Holds one refusal as an endpoint sent it. `code` is its `code`, `type` and `param`, as far as it names any."""

    status: int
    message: str
    code: str = ""


@dataclass(frozen=True)
class Rule:
    """Gives a meaning to refusals of some statuses whose code or message holds some words."""

    statuses: Collection[int]
    words: re.Pattern[str]
    meaning: Meaning
    reason: str  # of a reject, or the kind of advice


def _rule(statuses: Collection[int], words: str, meaning: Meaning, reason: str) -> Rule:
    return Rule(statuses, re.compile(words, re.I | re.S), meaning, reason)


ANY = range(100, 1000)
RULES = (
    # A web page, or Cloudflare's bare number: no API sent it.
    _rule({403}, r"^\s*(<!doctype html|<html|error code: 1\d{3})", "stop", "blocked"),
    _rule({407}, r"", "stop", "blocked"),
    _rule(
        {400, 401, 403, 429},
        r"insufficient_quota|billing_not_active|billing_hard_limit|credit balance is too low|credits are depleted"
        r"|used all available credits|any credits|spending limit|specified api usage limits",
        *("stop", "credit"),
    ),
    _rule({402}, r"", "stop", "credit"),
    _rule(
        BAD_REQUEST,
        r"content.?filter|content_policy|敏感内容|data_inspection_failed|invalid_prompt|content management policy"
        r"|moderation|flagged|violates usage guidelines|content exists risk|prompt was blocked|safety_check",
        *("row", "filtered"),
    ),
    _rule(
        BAD_REQUEST,
        r"max_(completion_)?tokens.{0,40}(too large|at most|less than or equal|valid range|exceed context limit)"
        r"|maxOutputTokens.{0,60}supported range|max_tokens: \d+ > \d+|max_new_tokens"
        r"|you requested (about )?\d+ tokens|request has \d+ input tokens",
        *("limit", "max_tokens"),
    ),
    _rule(
        BAD_REQUEST,
        r"context.?length|context.?window|context.?size|maximum (input|prompt) length"
        r"|(prompt|input) is too long"
        r"|token count.{0,40}exceeds|(inputs?|prompt).{0,40}(must have less than|exceeds?).{0,60}tokens?",
        *("row", "prompt_too_long"),
    ),
    _rule({413}, r"", "row", "too_large_for_endpoint"),
    _rule({429}, r"request too large|too large for model", "row", "too_large_for_endpoint"),
    _rule({400, 422}, r"json_validate_failed", "reply", "malformed"),
    _rule(
        {400, 422, 501},
        r"max_completion_tokens.{0,60}instead|unsupported.{0,40}max_tokens|max_tokens.{0,60}not supported",
        *("field", "max_tokens"),
    ),
    _rule({400}, r"temperature.{0,9}top_p.{0,9}cannot both", "field", "top_p"),
    *(_rule({400, 404, 422, 501}, rf"\b{field}\b", "field", field) for field in OPTIONAL_FIELDS[:-1]),
    _rule(
        {400, 404, 422, 501},
        r"json_schema|json schema|structured output|guided|grammar|min_?length|max_?length|min_?items|max_?items"
        r"|\bpattern\b",
        *("field", "response_format"),
    ),
    _rule({400, 422}, r"\bn\b.{0,40}(must|only|support|greater)", "field", "n"),
    _rule({400, 403, 404, 422, 501}, r"logprobs", "stop", "logprobs"),
    _rule({401}, r"", "stop", "key"),
    _rule({403}, r"quota.{0,40}replenished", "later", ""),
    _rule({400, 403}, r"api.?key|permission|unauthori[sz]ed|not authori[sz]ed|access denied", "stop", "key"),
    _rule(
        {400, 404, 422},
        r"model.{0,200}(not (be )?found|not exist|unknown|decommissioned)|model_not_found|deploymentnotfound"
        r"|invalid.model\b|not a valid model|no models? loaded",
        *("stop", "model"),
    ),
    _rule({403}, r"", "stop", "key"),
    _rule({404}, r"no endpoints found", "stop", "other"),
    _rule({301, 302, 303, 307, 308, 404, 405}, r"", "stop", "address"),
    _rule({501, 505}, r"", "stop", "other"),
    _rule({408, 409, 424, 425, 429, 498, 499, *range(500, 600)}, r"", "later", ""),
)  # fmt: skip
OTHER = _rule(ANY, r"", "stop", "other")


def explain_refusal(refusal: Refusal) -> Rule:
    """Find the rule of a refusal."""
    text = f"{refusal.code} {refusal.message}"
    return next((rule for rule in RULES if refusal.status in rule.statuses and rule.words.search(text)), OTHER)


def affordable_tokens(message: str) -> int | None:
    """Read from a refusal how many tokens a reply may have; None where it does not say, or there is no room at all."""
    numbers = [int(number) for number in re.findall(r"\d+", message.replace(",", ""))]
    if fits := re.search(r"(?:at most|maximum(?: value)?(?: is| of)?) (\d+) (?:completion|output) tokens", message):
        return int(fits[1])
    if most := re.search(r"less than or equal to `?(\d+)|range of max_tokens is \[1, (\d+)|> (\d+), which", message):
        return int(most[most.lastindex or 0])
    if beyond := re.search(r"to (\d+) \(exclusive\)", message):
        return int(beyond[1]) - 1
    window = re.search(r"(?:context (?:length|window)(?: is| of)?|must be <=|context limit:.*>) *(\d+)", message)
    prompt = re.search(
        r"(\d+) in (?:the messages|your prompt)|(\d+) of text input|limit: (\d+) \+"
        r"|request has (\d+) input tokens|(\d+) `inputs` tokens"
        r"|prompt contains (?:at least )?(\d+)",
        message,
    )
    if len(numbers) < 2 or window is None or prompt is None:
        return None
    room = int(window[1]) - int(next(number for number in prompt.groups() if number))
    return room if room > 0 else None
