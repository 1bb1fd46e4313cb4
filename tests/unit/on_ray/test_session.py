"""A private Ray is begun with a token that its owner alone can read, or not at all."""

import stat

import pytest
import ray

from speed_ray.errors import UserError
from speed_ray.on_ray.session import session, shared_session


@pytest.fixture
def begun(monkeypatch, tmp_path) -> list[int]:
    """Have Ray note the mode of its token where it would start."""
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "ray" / "token"))
    modes: list[int] = []

    def init(**settings: object) -> None:
        modes.append(stat.S_IMODE((tmp_path / "ray" / "token").stat().st_mode))

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    return modes


def test_the_token_is_closed_before_a_private_ray_starts(begun):
    with session():
        pass
    assert begun == [0o600]


def test_a_token_that_ray_left_open_is_closed_first(begun, tmp_path):
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "token").write_text("as Ray makes it")
    (tmp_path / "ray" / "token").chmod(0o644)
    with session():
        pass
    assert begun == [0o600]


def test_where_no_token_can_be_written_the_file_is_named(begun, tmp_path):
    (tmp_path / "ray").write_text("a file where the folder should be")
    with pytest.raises(UserError, match=f"no token at {tmp_path}/ray/token"), session():
        pass
    assert not begun


def test_jobs_of_one_command_share_a_private_ray(monkeypatch):
    calls: list[str] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: calls.count("init") > calls.count("shutdown"))
    monkeypatch.setattr(ray, "init", lambda **settings: calls.append("init"))
    monkeypatch.setattr(ray, "shutdown", lambda: calls.append("shutdown"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with shared_session():
        for _ in range(2):
            with session():
                calls.append("job")
    assert calls == ["init", "job", "job", "shutdown"]
