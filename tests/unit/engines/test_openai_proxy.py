"""The environment's proxy is taken as curl takes it; one that cannot be asked through is refused before a call."""

import asyncio

import pytest
import yarl

from speed_ray.engines.base import FatalEngineError
from speed_ray.errors import UserError
from tests.helpers.tiny_endpoint import all_of, answers, texts

ELSEWHERE = "http://endpoint.invalid/v1"  # a name that nobody but a proxy can look up


@pytest.fixture
def through(monkeypatch: pytest.MonkeyPatch):
    """Set the proxy of all endpoints."""
    for name in ("http_proxy", "no_proxy", "NO_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return lambda proxy: monkeypatch.setenv("http_proxy", proxy)


@pytest.mark.parametrize("form", ["{}:{}", "http://{}:{}", "http://user:secret@{}:{}"])
async def test_a_proxy_without_its_scheme_is_one_of_http(endpoint, connect, through, form):
    address = yarl.URL(endpoint.url)
    through(form.format(address.host, address.port))
    client = await connect(base_url=ELSEWHERE)
    assert texts(await all_of(client, 3)) == answers(3)
    assert endpoint.headers[0]["Host"] == "endpoint.invalid"


@pytest.mark.parametrize("proxy", ["socks5://user:secret@127.0.0.1:1", "proxy:port", "http://"])
async def test_a_proxy_that_does_not_speak_http_is_refused_and_its_password_not_shown(connect, through, proxy):
    through(proxy)
    with pytest.raises(UserError, match=r"http_proxy \(or HTTP_PROXY\) names .*\n.*http://host:port") as caught:
        await connect(base_url=ELSEWHERE)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("status", ["403 Forbidden", "407 Proxy Authentication Required"])
async def test_a_proxy_that_makes_no_tunnel_ends_the_job_at_once(connect, through, monkeypatch, status):
    asked = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if line := await reader.readline():  # none comes where somebody only looks whether anybody is there
            asked.append(line)
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as proxy:
        port = proxy.sockets[0].getsockname()[1]
        monkeypatch.setenv("https_proxy", f"http://user:secret@127.0.0.1:{port}")
        client = await connect(base_url="https://endpoint.invalid/v1")
        [end] = await all_of(client, 1)
    assert isinstance(end, FatalEngineError) and "The proxy said: HTTP {}: {}".format(*status.split(" ", 1)) in str(
        end
    )
    assert "secret" not in str(end) and len(asked) == 1
