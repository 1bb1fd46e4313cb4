"""The files of a corpus are found wherever they lie, and their content alone tells whether they changed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from speed_ray.documents.sources import open_source
from speed_ray.errors import UserError
from speed_ray.storage.store import open_store
from tests.helpers.s3_proxy import serve_s3


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("", ["a.md", "b/c.md", "b/d.txt"]),
        ("b", ["c.md", "d.txt"]),
        ("b/c.md", ["c.md"]),
        ("*.md", ["a.md"]),
        ("**/*.md", ["a.md", "b/c.md"]),
        ("b/?.*", ["c.md", "d.txt"]),
    ],
)
def test_a_source_is_a_file_a_folder_or_a_pattern(tmp_path: Path, source: str, expected: list[str]) -> None:
    write(tmp_path, "a.md", "b/c.md", "b/d.txt", ".git/e.md", "b/.hidden.md")
    with open_source(f"{tmp_path}/{source}".rstrip("/")) as found:
        assert found.names == expected
        assert all((found.folder / name).is_file() for name in found.names)


def test_a_relative_source_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a.md", "b/c.md")
    monkeypatch.chdir(tmp_path)
    for source, expected in (("a.md", ["a.md"]), ("*.md", ["a.md"]), ("b", ["c.md"]), (".", ["a.md", "b/c.md"])):
        with open_source(source) as found:
            assert found.names == expected


def test_the_digest_is_of_names_and_contents(tmp_path: Path) -> None:
    for folder in ("one", "two", "three"):
        write(tmp_path / folder, "a.md")
    (tmp_path / "three" / "a.md").write_text("changed")
    digests = []
    for folder in ("one", "two", "three"):
        with open_source(str(tmp_path / folder)) as found:
            digests.append(found.digest())
    assert digests[0] == digests[1] != digests[2]


@pytest.fixture
def s3() -> Iterator[int]:
    """The port of an S3 server with a bucket named `bucket`."""
    server, port = serve_s3()
    yield port
    server.stop()


def test_a_bucket_is_copied_for_as_long_as_it_is_read(s3: int, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "us-east-1"}
    for name, value in {**keys, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3}"}.items():
        monkeypatch.setenv(name, value)
    store = open_store("s3://bucket/docs")
    for name in ("a.md", "b/c.md", "corpus.txt"):
        store.put(name, name.encode())
    below = {"": ["a.md", "b/c.md", "corpus.txt"], "/**/*.md": ["a.md", "b/c.md"], "/a.md": ["a.md"]}
    for source, expected in below.items():
        with open_source(f"s3://bucket/docs{source}") as found:
            assert found.names == expected
            assert all((found.folder / name).read_text() == name for name in expected)
        assert not found.folder.exists()
    with (
        pytest.raises(UserError, match=r"there is no file s3://bucket/docs/z.md"),
        open_source("s3://bucket/docs/z.md"),
    ):
        pass


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no file .*/\*\.md"), open_source(f"{tmp_path}/*.md"):
        pass
