"""Storage as the protocol needs it: whole objects, and one atomic verb, `create`, that has one winner.

One interface for local disk, S3 (`If-None-Match: *`), GCS (generation 0), Azure and memory, through obstore. Local
disk gets `fsync` on top: obstore does not ask for it, and a commit that a power cut can tear is no commit.
"""

import contextlib
import os
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import obstore
from obstore import exceptions
from obstore.store import from_url

from speed_ray.errors import Interrupted, UserError

# A throttling store (503 for minutes) must only slow a run down, so obstore retries far longer than its defaults.
RETRIES: Any = {
    "max_retries": 30,
    "retry_timeout": timedelta(minutes=10),
    "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=20), "base": 2},
}
CLOUDS = ("s3", "gs", "az", "abfs", "abfss")


class ObjectStore:
    """A bucket, or a folder of one. Paths are relative, with forward slashes. Safe to use from several threads."""

    def __init__(self, backend: Any, uri: str) -> None:
        self.backend = backend
        self.uri = uri

    def create(self, path: str, data: bytes) -> bool:
        """Write an object only if none is there. Returns whether the object that is there now is ours.

        Data must be unique to its writer: when the response of a successful put is lost, the retried put is told
        "already exists", and only the content can tell that the object is our own.
        """
        try:
            obstore.put(self.backend, path, data, mode="create", use_multipart=False)
            return True
        except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
            return self.get(path) == data
        except exceptions.BaseError as error:
            raise _explain(error, self.uri, path) from error

    def put(self, path: str, data: bytes) -> None:
        """Write an object whose name nobody else uses."""
        try:
            obstore.put(self.backend, path, data)
        except exceptions.BaseError as error:
            raise _explain(error, self.uri, path) from error

    def get(self, path: str) -> bytes:
        """Read an object. Raises FileNotFoundError."""
        try:
            return bytes(obstore.get(self.backend, path).bytes())
        except exceptions.BaseError as error:
            raise _explain(error, self.uri, path) from error

    def names(self, folder: str) -> list[str]:
        """List the names of the objects in a folder and below it, sorted, relative to the folder."""
        prefix = folder.rstrip("/") + "/"
        try:
            found = [item["path"] for chunk in obstore.list(self.backend, prefix) for item in chunk]
        except exceptions.BaseError as error:
            raise _explain(error, self.uri, folder) from error
        return sorted(path.removeprefix(prefix) for path in found)

    def delete(self, path: str) -> None:
        """Remove an object; one that is already gone is fine."""
        with contextlib.suppress(FileNotFoundError):
            obstore.delete(self.backend, path)


class LocalFolder:
    """A folder on local disk, or on a file system that nodes share. What `create` and `put` return from is on disk."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uri = str(root)

    def create(self, path: str, data: bytes) -> bool:
        """Link a synced file into place: a hard link is atomic and refuses an existing name, on NFS too."""
        final = self.root / path
        temporary = self._write(final.parent / f".{final.name}-{uuid.uuid4().hex}", data)
        try:
            os.link(temporary, final)
            _sync_folder(final.parent)
            return True
        except FileExistsError:
            return False
        finally:
            temporary.unlink()

    def put(self, path: str, data: bytes) -> None:
        """Write and sync a file, then give it its name."""
        final = self.root / path
        os.replace(self._write(final.parent / f".{final.name}-{uuid.uuid4().hex}", data), final)
        _sync_folder(final.parent)

    def get(self, path: str) -> bytes:
        """Read a file. Raises FileNotFoundError."""
        return (self.root / path).read_bytes()

    def names(self, folder: str) -> list[str]:
        """List files below a folder. Hidden ones are writes that were never finished: they do not count."""
        base = self.root / folder
        found = (Path(where, name) for where, _, names in os.walk(base) for name in names if name[0] != ".")
        return sorted(path.relative_to(base).as_posix() for path in found)

    def delete(self, path: str) -> None:
        """Remove a file; one that is already gone is fine."""
        (self.root / path).unlink(missing_ok=True)

    def _write(self, path: Path, data: bytes) -> Path:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            raise Interrupted(
                f"Cannot write {path}: {error.strerror or error}.\n"
                "Nothing that was committed is lost. Make room or set permissions, then run the same command again."
            ) from error
        return path


Store = ObjectStore | LocalFolder


def open_store(uri: str) -> Store:
    """Open a local folder, or s3://, gs://, az:// by its environment's credentials. Raises UserError."""
    scheme = urlsplit(uri).scheme
    if scheme in CLOUDS:
        return _open_cloud(uri)
    if scheme not in ("", "file"):
        raise UserError(f"{uri}: storage scheme {scheme!r} is not known; use a local path or {', '.join(CLOUDS)}")
    return LocalFolder(Path(urlsplit(uri).path if scheme else uri).expanduser().absolute())


def find(store: Store, path: str) -> bytes | None:
    """Read an object, or return None where there is none."""
    try:
        return store.get(path)
    except FileNotFoundError:
        return None


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _open_cloud(uri: str) -> ObjectStore:
    # An endpoint of one's own (MinIO, Ceph, a test server) is mostly plain HTTP, which obstore refuses unless told.
    endpoint = os.environ.get("AWS_ENDPOINT_URL", os.environ.get("AWS_ENDPOINT", ""))
    plain = endpoint.startswith("http://")
    try:
        return ObjectStore(from_url(uri, client_options={"allow_http": plain}, retry_config=RETRIES), uri)
    except exceptions.BaseError as error:
        raise UserError(f"{uri}: {error}") from None


def _explain(error: Exception, uri: str, path: str) -> Exception:
    if isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError):
        return Interrupted(
            f"{uri}/{path}: the store refused access ({str(error)[:200]}).\n"
            f"Nothing that was committed is lost. Renew the credentials, then run the same command again."
        )
    return Interrupted(
        f"{uri}/{path}: the store did not answer ({str(error)[:200]}).\n"
        f"Nothing that was committed is lost. Run the same command again when it is back."
    )
