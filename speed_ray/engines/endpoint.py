"""Read an endpoint's address, headers and key from the recipe and the environment."""

import email.utils
import os
import re
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime

import yarl

from speed_ray.errors import UserError
from speed_ray.recipes.engine_settings import OpenAIEngine

LONGEST_RETRY_AFTER = 86_400.0  # seconds
RATE_LIMIT = re.compile(r"ratelimit-limit|ratelimit-.*-limit$", re.I)
SECRET_HEADERS = re.compile(r"authorization|api[-_]?key|token|secret|cookie", re.I)


def check_endpoint(config: OpenAIEngine, key: str) -> yarl.URL:
    """Validate an endpoint's settings and return its URL. Raises UserError; `key` is its key in the recipe."""
    if config.budget.dollars is not None and config.price is None:
        raise UserError(f"{key}.budget.dollars needs {key}.price (dollars per million tokens)")
    for name, value in config.headers.items():
        if not re.fullmatch(r"[A-Za-z0-9-]+", name) or not (value.isascii() and value.isprintable()):
            raise UserError(
                f"{key}.headers.{name}: a header's name has letters, digits and -, its value ASCII on one line"
            )
        if SECRET_HEADERS.search(name) and not value.startswith("$"):
            raise UserError(
                f"{key}.headers.{name} holds a secret, and a recipe is stored with the run.\n"
                f'Write "$NAME" for the value, with the name of an environment variable that holds it.'
            )
    return _url(config, key)


def request_headers(config: OpenAIEngine, key: str) -> tuple[dict[str, str], list[str]]:
    """Return the headers of every call, and the secrets among them. Raises UserError where a variable is not set."""
    headers, secrets = {"Content-Type": "application/json", "User-Agent": "speed_ray"}, []
    if config.api_key_env is not None:
        secrets.append(_secret(config.api_key_env, f"{key}.api_key_env"))
        headers["Authorization"] = f"Bearer {secrets[0]}"
    for name, value in config.headers.items():
        if value.startswith("$"):
            value = _secret(value.removeprefix("$"), f"{key}.headers.{name}")
            secrets.append(value)
        headers[name] = value
    return headers, secrets


def proxy_of(url: yarl.URL) -> str | None:
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


def parse_retry_after(headers: Mapping[str, str]) -> float:
    """Return the seconds to wait that a response asks for, 0.0 where it asks for none that can be read.

    `retry-after-ms`, OpenAI's and Azure's, is finer than Retry-After (seconds, "20s" too, or an HTTP date).
    """
    fine = _seconds(headers.get("retry-after-ms", "")) / 1000
    return min(fine or _seconds(headers.get("Retry-After", "")), LONGEST_RETRY_AFTER)


def read_rate_limits(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that tell what an endpoint allows in a time: OpenAI's, Azure's, Groq's, Anthropic's."""
    return {name.lower(): value for name, value in headers.items() if RATE_LIMIT.search(name)}


def _seconds(header: str) -> float:
    try:
        seconds = float(header.strip().removesuffix("s"))
    except ValueError:
        try:
            date = email.utils.parsedate_to_datetime(header)
        except ValueError:
            return 0.0
        seconds = (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return seconds if seconds > 0 else 0.0  # also for nan


def _url(config: OpenAIEngine, key: str) -> yarl.URL:
    hint = (
        f"{key}.base_url must look like https://host/v1, without a user name, password, key or query in it; "
        f"a query such as Azure's api-version goes into {key}.query"
    )
    try:
        url = yarl.URL(config.base_url.rstrip("/") + "/chat/completions")
    except ValueError:
        raise UserError(hint) from None
    if url.scheme not in ("http", "https") or not url.host or url.user or url.password or url.query_string:
        raise UserError(hint)
    return url.with_query(config.query) if config.query else url


def _secret(variable: str, key: str) -> str:
    secret = os.environ.get(variable, "").strip()
    if not secret:
        raise UserError(
            f"{key} names the environment variable {variable}, which is not set.\n"
            "Set it to the endpoint's key; the key itself never goes into a recipe."
        )
    if not secret.isascii() or not secret.isprintable():
        raise UserError(f"the environment variable {variable} holds characters that no key has: copy the key again")
    return secret
