"""A push asks the hub for a private repository, mixes rows with nobody else's, and explains what is refused."""

from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.errors import HfHubHTTPError

from speed_ray import cli
from speed_ray.errors import Interrupted, UserError
from speed_ray.export.push import push_folder


class Hub:
    """A hub in memory: repositories by name, with their files and whether they are private."""

    def __init__(self) -> None:
        self.private: dict[str, bool] = {}
        self.files: dict[str, set[str]] = {}
        self.refuses: Exception | None = None

    def __call__(self, **_: str) -> "Hub":
        return self

    def create_repo(self, name: str, repo_type: str, private: bool, exist_ok: bool) -> str:
        assert exist_ok
        self.private.setdefault(name, private)
        self.files.setdefault(name, {".gitattributes"})
        return f"hub/{repo_type}s/{name}"

    def repo_info(self, name: str, repo_type: str) -> SimpleNamespace:
        return SimpleNamespace(private=self.private[name])

    def list_repo_files(self, name: str, repo_type: str) -> list[str]:
        return sorted(self.files[name])

    def upload_folder(self, repo_id, repo_type, folder_path, commit_message) -> None:
        for path in sorted(path for path in folder_path.rglob("*") if path.is_file()):
            self.files[repo_id].add(path.relative_to(folder_path).as_posix())
            if self.refuses:
                raise self.refuses


@pytest.fixture
def hub(monkeypatch):
    hub = Hub()
    monkeypatch.setattr(huggingface_hub, "HfApi", hub)
    return hub


@pytest.fixture
def folder(tmp_path):
    for name in ("README.md", "data/a.parquet", "data/b.parquet"):
        (tmp_path / "to" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "to" / name).write_text(name)
    return tmp_path / "to"


def refusal(status: int) -> HfHubHTTPError:
    response = SimpleNamespace(status_code=status, headers={}, request=None)
    return HfHubHTTPError("no", response=response)


def test_what_is_pushed_is_private_unless_asked_otherwise(hub, folder):
    assert push_folder(folder, "me/rows", "dataset", public=False) == "hub/datasets/me/rows"
    push_folder(folder, "me/open", "dataset", public=True)
    assert hub.private == {"me/rows": True, "me/open": False}
    assert hub.files["me/rows"] == {".gitattributes", "README.md", "data/a.parquet", "data/b.parquet"}


def test_a_push_that_broke_off_goes_on(hub, folder):
    hub.refuses = refusal(503)
    with pytest.raises(Interrupted, match="Run the same command again"):
        push_folder(folder, "me/rows", "dataset", public=False)
    hub.refuses = None
    push_folder(folder, "me/rows", "dataset", public=False)
    assert len(hub.files["me/rows"]) == 4


def test_a_public_repository_gets_nothing_unasked(hub, folder):
    hub.private["me/open"], hub.files["me/open"] = False, set()
    with pytest.raises(UserError, match="that repository is public"):
        push_folder(folder, "me/open", "dataset", public=False)
    assert not hub.files["me/open"]


def test_rows_of_another_export_are_not_mixed_in(hub, folder):
    hub.private["me/rows"], hub.files["me/rows"] = True, {"data/c.parquet"}
    with pytest.raises(UserError, match=r"holds data/c.parquet"):
        push_folder(folder, "me/rows", "dataset", public=False)


def test_a_token_that_may_not_write_is_told(hub, folder):
    hub.refuses = refusal(403)
    with pytest.raises(UserError, match="the hub refused the token"):
        push_folder(folder, "me/rows", "dataset", public=False)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--push", "rows"], "write it as owner/name"),
        (["--push", "me/rows"], "there is no token of the hub"),
        (["--public"], "name where to with --push"),
        (["--to", "s3://bucket/to"], "an export is a folder on this machine"),
    ],
)
def test_what_cannot_be_pushed_is_refused_before_anything_is_written(monkeypatch, tmp_path, capsys, options, named):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cli.main(["export", "no-run", "--as", "hub", "--to", "to", *options])
    assert ended.value.code == 2 and named in capsys.readouterr().err and not list(tmp_path.iterdir())
