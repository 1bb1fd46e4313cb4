"""The token of a cluster: made where there is none, and never left for others to read."""

import stat
from pathlib import Path

import pytest

from speed_ray.errors import UserError
from speed_ray.on_ray import auth_token


@pytest.fixture(autouse=True)
def file(tmp_path, monkeypatch) -> Path:
    """Where the token of each test lies."""
    monkeypatch.delenv(auth_token.VALUE, raising=False)
    monkeypatch.setenv(auth_token.FILE, str(tmp_path / "folder" / "token"))
    return tmp_path / "folder" / "token"


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def test_a_token_is_made_for_its_owner_alone(file):
    auth_token.make()
    assert len(file.read_text()) == 64
    assert mode(file) == 0o600
    assert [path.name for path in file.parent.iterdir()] == [file.name], "something is left beside it"


def test_a_token_that_is_there_is_kept(file):
    auth_token.make()
    token = file.read_text()
    auth_token.make()
    assert file.read_text() == token


def test_two_heads_at_once_have_one_token(file, monkeypatch):
    """The second one saw no file, and finds one when it comes to write its own."""
    auth_token.make()
    token = file.read_text()
    monkeypatch.setattr(Path, "exists", lambda path: False)
    auth_token.make()
    assert file.read_text() == token and mode(file) == 0o600


def test_a_token_that_others_can_read_is_mended(file, capsys):
    file.parent.mkdir()
    file.write_text("as Ray makes it")
    file.chmod(0o644)
    auth_token.require()
    assert mode(file) == 0o600
    assert f"{file} could be read by others" in capsys.readouterr().out


def test_a_node_without_a_token_is_told_where_it_belongs(file):
    with pytest.raises(UserError, match="copy the head's there"):
        auth_token.require()
    assert not file.exists()


def test_an_empty_token_is_none(file):
    file.parent.mkdir()
    file.touch()
    with pytest.raises(UserError, match="is empty"):
        auth_token.make()


def test_a_token_that_cannot_be_made(file):
    file.parent.write_text("a file where the folder should be")
    with pytest.raises(UserError, match="cannot be made"):
        auth_token.make()


def test_a_token_in_the_environment_needs_no_file(file, monkeypatch):
    monkeypatch.setenv(auth_token.VALUE, "secret")
    auth_token.make()
    assert not file.exists()


def test_without_a_path_it_is_rays_own(monkeypatch, tmp_path):
    monkeypatch.delenv(auth_token.FILE)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert auth_token.path() == tmp_path / ".ray" / "auth_token"
