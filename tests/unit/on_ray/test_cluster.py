"""`speed-ray head` and `speed-ray join`: wrong input ends with code 2, and the token stays private."""

import signal
import socket
import stat
from pathlib import Path

import pytest

from speed_ray.cli import main
from speed_ray.errors import UserError
from speed_ray.on_ray import cluster
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


@pytest.mark.parametrize("address", ["x", "x:y", "x:99999999", "x:0"])
def test_an_address_that_is_none_is_refused_at_once(said, address):
    code, words = said("join", address)
    assert code == 2 and f"join {address}: name the head as host:port" in words


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


@pytest.fixture
def token(tmp_path, monkeypatch) -> Path:
    """Return where the token of a test lies."""
    monkeypatch.delenv(cluster.TOKEN, raising=False)
    monkeypatch.delenv(cluster.MODE, raising=False)
    monkeypatch.setenv(cluster.TOKEN_FILE, str(tmp_path / "folder" / "token"))
    return tmp_path / "folder" / "token"


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def test_a_token_is_made_for_its_owner_alone(token):
    cluster.ensure_token(create=True)
    assert len(token.read_text()) == 64
    assert mode(token) == 0o600
    assert [path.name for path in token.parent.iterdir()] == [token.name], "something is left beside it"


def test_a_second_head_keeps_the_token(token):
    cluster.ensure_token(create=True)
    written = token.read_text()
    cluster.ensure_token(create=True)
    assert token.read_text() == written


def test_a_token_that_others_can_read_is_closed(token):
    token.parent.mkdir()
    token.write_text("as Ray makes it")
    token.chmod(0o644)
    cluster.ensure_token(create=False)
    assert mode(token) == 0o600


def test_a_node_makes_no_token(token):
    with pytest.raises(UserError, match="copy the head's there"):
        cluster.ensure_token(create=False)
    assert not token.exists()


def test_an_empty_token_is_refused(token):
    token.parent.mkdir()
    token.touch()
    with pytest.raises(UserError, match="is empty"):
        cluster.ensure_token(create=True)


def test_a_token_that_cannot_be_made(token):
    token.parent.write_text("a file where the folder should be")
    with pytest.raises(UserError, match="name another file by RAY_AUTH_TOKEN_PATH"):
        cluster.ensure_token(create=True)


def test_a_token_in_the_environment_needs_no_file(token, monkeypatch):
    monkeypatch.setenv(cluster.TOKEN, "secret")
    cluster.ensure_token(create=True)
    assert not token.exists()


def test_without_a_path_the_token_is_where_ray_reads_it(monkeypatch, tmp_path):
    monkeypatch.delenv(cluster.TOKEN_FILE, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cluster.token_path() == tmp_path / ".ray" / "auth_token"
