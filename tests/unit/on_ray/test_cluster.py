"""`speed-ray head` and `speed-ray join`: what is wrong with the input is said with code 2, before a node is there."""

import signal
import socket

import pytest

from speed_ray.cli import main
from tests.helpers.tiny_cluster import free_ports


@pytest.fixture
def said(capsys, monkeypatch, tmp_path):
    """Run `speed-ray` in this process, with a token file that is not there yet. Returns exit code and words."""
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out + captured.err

    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("option", ["--port", "--dashboard-port"])
def test_a_port_that_is_taken(said, tmp_path, option):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        other = "--dashboard-port" if option == "--port" else "--port"
        code, words = said("head", option, str(number), other, str(free_ports(1)[0]))
    assert code == 2
    assert f"{option} {number}" in words and "in use" in words
    assert not (tmp_path / "token").exists()


def test_joining_without_a_token(said, tmp_path):
    code, words = said("join", "127.0.0.1:1")
    assert code == 2
    assert str(tmp_path / "token") in words and "copy the head's there" in words


def test_an_option_that_ray_does_not_know(said):
    port, dashboard_port = free_ports(2)
    code, words = said("head", "--port", str(port), "--dashboard-port", str(dashboard_port), "--", "--no-such-option")
    assert code == 2
    assert "No such option" in words and "--no-such-option" in words
