"""Find the files of a corpus: a BEIR folder, a table, or a folder or glob of texts, on any store.

What lies in a bucket is copied to the driver's temporary folder once: tables are read a line at a time, and a store
gives whole objects.
"""

import contextlib
import hashlib
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from speed_ray.documents import table_rows
from speed_ray.errors import UserError
from speed_ray.storage.store import CLOUDS, Store, open_store
from speed_ray.text import beir
from speed_ray.text.tables import file_format

KEY = "corpus.source"  # of the recipe, for messages
WILDCARDS = re.compile(r"[*?]")
BLOCK = 1 << 20  # bytes hashed at once


@dataclass(frozen=True)
class Source:
    """Hold the files of a corpus: their names, sorted, below a folder of this machine."""

    folder: Path
    names: list[str]
    is_copy: bool = False  # of a bucket's, on this machine alone

    @property
    def has_tables(self) -> bool:
        """Return whether any file may hold more than one document."""
        return any(file_format(Path(name)) in table_rows.FORMATS for name in self.names)

    def size(self, name: str) -> int:
        """Return the bytes of a file; 0 for one that is not there."""
        path = self.folder / name
        return path.stat().st_size if path.is_file() else 0

    def digest(self) -> str:
        """Hash the names and contents of all files."""
        digest = hashlib.sha256()
        for name in self.names:
            of_file = _file_digest(self.folder / name)
            digest.update(f"{len(name)} {name} {of_file}".encode())
        return digest.hexdigest()


@contextlib.contextmanager
def open_source(uri: str) -> Iterator[Source]:
    """Find the files of a source, those in a bucket copied for as long as they are used.

    Raises UserError where there is none.
    """
    folder, names = _located(uri)
    if not names:
        raise UserError(f"{KEY}: there is no file {uri}. Name a file, a folder, or a pattern such as docs/**/*.md.")
    if urlsplit(uri).scheme not in CLOUDS:
        yield Source(Path(open_store(folder).uri), names)
        return
    with tempfile.TemporaryDirectory(prefix="speed_ray-corpus-") as copies:
        _copy(open_store(folder), names, Path(copies))
        yield Source(Path(copies), names, is_copy=True)


def _located(uri: str) -> tuple[str, list[str]]:
    """Split a source into a folder and the names of its files below that, sorted."""
    if found := WILDCARDS.search(uri):
        folder = uri[: found.start()].rpartition("/")[0] or ("/" if uri.startswith("/") else ".")
        pattern = _compiled(uri[len(folder) :].lstrip("/") if uri.startswith(folder) else uri)
        return folder, [name for name in _listed(folder) if pattern.fullmatch(name)]
    if _is_file(uri):
        folder, _, name = uri.rpartition("/")
        return folder or ("/" if uri.startswith("/") else "."), [name]
    names = _listed(uri)
    corpus = [name for name in (beir.CORPUS, f"{beir.CORPUS}.gz") if name in names]
    return uri, corpus[:1] or names


def _listed(folder: str) -> list[str]:
    return [name for name in open_store(folder).names("") if not any(part[0] == "." for part in name.split("/"))]


def _is_file(uri: str) -> bool:
    if urlsplit(uri).scheme not in CLOUDS:
        return Path(uri.removeprefix("file://")).expanduser().is_file()
    return "." in uri.rpartition("/")[2] and not _listed(uri)


def _compiled(pattern: str) -> re.Pattern[str]:
    """Compile a glob: `*` stands for any part of a name, `**/` for any folders, `?` for a character."""
    escaped = re.escape(pattern).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
    return re.compile(escaped)


def _copy(store: Store, names: list[str], folder: Path) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            store.download(name, folder / name)
        except FileNotFoundError:
            raise UserError(f"{KEY}: there is no file {store.uri}/{name}.") from None


def _file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
    except OSError as error:  # the reader says so of the file, where it is a reject
        digest.update(str(error.strerror).encode())
    return digest.hexdigest()
