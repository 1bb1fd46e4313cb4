"""Store whole objects on local disk or in a bucket, with an atomic `create` that has one winner.

One interface for local disk, S3 (`If-None-Match: *`), GCS (generation 0), Azure and memory, through obstore. Local
disk gets `fsync` on top: obstore does not ask for it, and a commit that a power cut can tear is no commit.
"""

import contextlib
import errno
import json
import os
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import obstore
from obstore import exceptions
from obstore.store import from_url

from speed_ray.errors import Interrupted, UserError
from speed_ray.storage.uri import check_uri

# A throttling store (503 for minutes) must only slow a run down, so obstore retries far longer than its defaults.
RETRIES: Any = {
    "max_retries": 30,
    "retry_timeout": timedelta(minutes=10),
    "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=20), "base": 2},
}
METADATA = "169.254.169.254"  # where a machine in a cloud asks for credentials when the environment has none
# Refusals that obstore tells apart by their text alone: S3 says the first three with 400, a listing all of them, and
# AccessDenied within the 200 that answers a deletion.
REFUSED = ("AccessDenied", "ExpiredToken", "InvalidToken", "TokenRefreshRequired", "401 Unauthorized", "403 Forbidden")
NOT_IMPLEMENTED = ("501 Not Implemented", "<Code>NotImplemented</Code>")
CLOUDS = ("s3", "gs", "az", "abfs", "abfss")
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
CONFLICT_WAITS = (0.0, 0.1, 0.5, 2.0, 5.0, 10.0)  # seconds between tries to create what neither is there nor can be
# What a file system answers that has no hard links (exFAT, SMB, many of FUSE), or cannot sync a folder.
UNSUPPORTED = (errno.EPERM, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)


class AccessRefused(Interrupted):
    """The store's credentials, or a folder's permissions, do not allow what was asked."""


class CreateNotSupported(Interrupted):
    """The store cannot create an object only if it is absent, as far as can be told."""


class ObjectStore:
    """Stores objects in a bucket, or a folder of one. Paths are relative. Safe to use from several threads."""

    def __init__(self, backend: Any, uri: str) -> None:
        self.backend = backend
        self.uri = uri
        self.requests = Counter[str]()  # by verb, as asked here: obstore's own retries are not seen

    def create(self, path: str, data: bytes) -> bool:
        """Write an object only if none is there. Returns whether the object that is there now is ours.

        Data must be unique to its writer: when the response of a successful put is lost, the retried put is told
        "already exists", and only the content can tell that the object is our own.
        """
        for wait in CONFLICT_WAITS:
            self.requests["create"] += 1
            try:
                obstore.put(self.backend, path, data, mode="create", use_multipart=False)
                return True
            except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
                if (there := read_if_exists(self, path)) is not None:
                    return there == data
                # S3 answers 409 also where a write or a deletion of the same name is under way: nothing may be there.
                time.sleep(wait)
            except (exceptions.BaseError, FileNotFoundError, NotImplementedError) as error:
                raise _explain(error, self.uri, path) from error
        raise CreateNotSupported(f"{self.uri}/{path}: the store says that it is there, and that it is not")

    def put(self, path: str, data: bytes) -> None:
        """Write an object whose name nobody else uses."""
        with self._request("put", path, FileNotFoundError):
            obstore.put(self.backend, path, data)

    def upload(self, path: str, file: Path) -> None:
        """Write an object whose name nobody else uses from a file of any size, a few parts at a time in memory."""
        with self._request("put", path, FileNotFoundError):
            obstore.put(self.backend, path, file)

    def download(self, path: str, file: Path) -> None:
        """Write an object of any size to a local file. Raises FileNotFoundError."""
        try:
            with self._request("get", path), file.open("wb") as sink:
                for chunk in obstore.get(self.backend, path).stream(min_chunk_size=8 << 20):
                    sink.write(chunk)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _unwritable(file, error) from error

    def get(self, path: str) -> bytes:
        """Read an object. Raises FileNotFoundError."""
        with self._request("get", path):
            return bytes(obstore.get(self.backend, path).bytes())

    def names(self, folder: str) -> list[str]:
        """List the names of the objects in a folder and below it, sorted, relative to the folder."""
        prefix = folder.rstrip("/") + "/"
        with self._request("list", folder):
            found = [item["path"] for chunk in obstore.list(self.backend, prefix) for item in chunk]
        return sorted(path.removeprefix(prefix) for path in found)

    def delete(self, path: str) -> None:
        """Remove an object; one that is already gone is fine."""
        with contextlib.suppress(FileNotFoundError), self._request("delete", path):
            obstore.delete(self.backend, path)

    @contextlib.contextmanager
    def _request(self, verb: str, path: str, *more: type[Exception]) -> Iterator[None]:
        """Count a request, and say of obstore's errors, and of some more, what is to be done."""
        self.requests[verb] += 1
        faults: tuple[type[Exception], ...] = (exceptions.BaseError, *more)
        try:
            yield
        except faults as error:
            raise _explain(error, self.uri, path) from error


class LocalFolder:
    """Stores files in a folder on a local or shared file system; `create` and `put` return after fsync."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uri = str(root)
        self.requests = Counter[str]()

    def create(self, path: str, data: bytes) -> bool:
        """Write a file unless it exists; return True if the file there is ours. A synced file is hard-linked.

        A hard link is atomic and refuses an existing name, on NFS too. NFS may lose the response and send the request
        again, so where the name exists the content tells whose file it is.
        """
        self.requests["create"] += 1
        final = self.root / path
        temporary = self._write(final, lambda temporary: temporary.write_bytes(data))
        try:
            os.link(temporary, final)
            _sync_folder(final.parent)
            return True
        except FileExistsError:
            return read_if_exists(self, path) == data
        except OSError as error:
            if error.errno in UNSUPPORTED:
                raise _unsupported(final.parent, "hard links", error) from error
            raise _unwritable(final, error) from error
        finally:
            temporary.unlink(missing_ok=True)

    def put(self, path: str, data: bytes) -> None:
        """Write and sync a file, then give it its name."""
        self._replace(path, lambda temporary: temporary.write_bytes(data))

    def upload(self, path: str, file: Path) -> None:
        """Copy a file of any size and sync it, then give it its name."""
        self._replace(path, lambda temporary: shutil.copyfile(file, temporary))

    def download(self, path: str, file: Path) -> None:
        """Copy a file of any size out. Raises FileNotFoundError."""
        self.requests["get"] += 1
        try:
            shutil.copyfile(self.root / path, file)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise Interrupted(f"Cannot copy {self.root / path} to {file}: {error.strerror or error}.") from error

    def get(self, path: str) -> bytes:
        """Read a file. Raises FileNotFoundError."""
        self.requests["get"] += 1
        try:
            return (self.root / path).read_bytes()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise Interrupted(f"Cannot read {self.root / path}: {error.strerror or error}.") from error

    def names(self, folder: str) -> list[str]:
        """List files below a folder. Hidden ones are writes that were never finished: they do not count."""
        self.requests["list"] += 1
        base = self.root / folder
        walk = os.walk(base, onerror=_unlisted)
        found = (Path(where, name) for where, _, names in walk for name in names if name[0] != ".")
        return sorted(path.relative_to(base).as_posix() for path in found)

    def delete(self, path: str) -> None:
        """Remove a file; one that is already gone is fine."""
        self.requests["delete"] += 1
        try:
            (self.root / path).unlink(missing_ok=True)
        except OSError as error:
            raise _unwritable(self.root / path, error, "delete") from error

    def _replace(self, path: str, write: Callable[[Path], object]) -> None:
        self.requests["put"] += 1
        final = self.root / path
        temporary = self._write(final, write)
        try:
            os.replace(temporary, final)
            _sync_folder(final.parent)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise _unwritable(final, error) from error

    def _write(self, final: Path, write: Callable[[Path], object]) -> Path:
        """Write and sync a file beside its place, under a name that is not listed."""
        temporary = final.parent / f".{final.name}-{uuid.uuid4().hex}"
        try:
            _make_folder(final.parent)
            write(temporary)
            _sync(temporary)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise _unwritable(final, error) from error
        return temporary


Store = ObjectStore | LocalFolder


def open_store(uri: str, retries: Any = None) -> Store:
    """Open a local folder, or s3://, gs://, az:// by its environment's credentials. Raises UserError.

    `retries` take the place of `RETRIES`, for who does not want to wait.
    """
    if not uri.strip() or "\0" in uri or uri.startswith("://"):
        raise UserError("the run's folder has no name, or one that no folder can have: is the variable in --run set?")
    try:
        scheme, _, path, *_ = urlsplit(uri)
    except ValueError as error:  # of a bracket that begins no IPv6 address
        raise UserError(f"{uri} is no folder's URI: {error}.") from None
    if scheme in CLOUDS:
        return _open_cloud(uri, retries or RETRIES)
    if scheme == "file":
        check_uri(uri)
    elif scheme:
        raise UserError(f"{uri}: storage scheme {scheme!r} is not known; use a local path or {', '.join(CLOUDS)}")
    return _open_local(uri, path if scheme else uri)


def read_if_exists(store: Store, path: str) -> bytes | None:
    """Read an object, or return None where there is none."""
    try:
        return store.get(path)
    except FileNotFoundError:
        return None


def read_json(store: Store, path: str, advice: str) -> Any:
    """Parse a JSON file; None where there is none. Raises Interrupted, with `advice`, where it is damaged."""
    data = read_if_exists(store, path)
    try:
        return None if data is None else json.loads(data)
    except ValueError as error:
        raise Interrupted(f"{store.uri}/{path} is damaged ({error}).\n{advice}") from None


def delete_if_allowed(store: Store, path: str) -> bool:
    """Remove an object that does no harm where it stays. Return False where the credentials may not delete."""
    try:
        store.delete(path)
    except AccessRefused:
        return False
    return True


def cache_folder() -> Path:
    """Return this machine's cache folder: `$SPEED_RAY_CACHE`, else `~/.cache/speed_ray`."""
    return Path(os.environ.get("SPEED_RAY_CACHE") or Path.home() / ".cache" / "speed_ray")


def _make_folder(path: Path) -> None:
    """Make a folder and those above it, each synced into its parent: a commit must not outlive the files it names."""
    if not path.is_dir():
        _make_folder(path.parent)
        path.mkdir(exist_ok=True)
        _sync_folder(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folder(path: Path) -> None:
    try:
        _sync(path)
    except OSError as error:
        if error.errno in UNSUPPORTED:
            raise _unsupported(path, "fsync of folders", error) from error
        raise


def _open_cloud(uri: str, retries: Any) -> ObjectStore:
    check_uri(uri)
    options: Any = {}
    # An endpoint of one's own (MinIO, Ceph, a test server) is mostly plain HTTP, which obstore refuses unless told.
    plain = any(os.environ.get(name, "").startswith("http://") for name in ENDPOINTS)
    if plain and not os.environ.get("AWS_ALLOW_HTTP"):
        options["client_options"] = {"allow_http": True}
    try:
        return ObjectStore(from_url(uri, retry_config=retries, **options), uri)
    except (exceptions.BaseError, ValueError) as error:  # the latter: a bucket's name that no host can have
        raise UserError(f"{uri}: {_said(error)}") from None


def _open_local(uri: str, path: str) -> LocalFolder:
    try:
        root = Path(path).expanduser().absolute()
        if root.is_file():
            raise UserError(f"{uri} is a file. A run is a folder: name one that is there, or one to begin.")
    except (OSError, RuntimeError) as error:  # a name too long, a folder above it that is closed; ~nobody
        raise UserError(f"{uri} cannot be opened: {getattr(error, 'strerror', None) or error}.") from None
    return LocalFolder(root)


def _unwritable(path: Path, error: OSError, verb: str = "write") -> Interrupted:
    kind = AccessRefused if isinstance(error, PermissionError) else Interrupted
    return kind(
        f"Cannot {verb} {path}: {error.strerror or error}.\n"
        "Nothing that was committed is lost. Make room or set permissions, then run the same command again."
    )


def _unsupported(folder: Path, what: str, error: OSError) -> UserError:
    return UserError(
        f"{folder} lies on a file system without {what} ({error.strerror or error}), which cannot hold a run: what is "
        "written there\nmay be lost or counted twice. Use a local disk, NFS or a bucket for --run."
    )


def _unlisted(error: OSError) -> None:
    """Raise Interrupted for a folder that is there but cannot be listed: it must not pass for an empty one."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise Interrupted(
            f"Cannot list {error.filename}: {error.strerror or error}.\n"
            "Nothing that was committed is lost. Run the same command again when the folder can be read."
        ) from error


def _explain(error: Exception, uri: str, path: str) -> Exception:
    said = _said(error)
    if isinstance(error, NotImplementedError) or any(code in said for code in NOT_IMPLEMENTED):
        return CreateNotSupported(f"{uri}/{path}: the store cannot do that ({said})")
    if isinstance(error, FileNotFoundError):
        return UserError(f"{uri}/{path} cannot be written: there is no such bucket ({said}).")
    if METADATA in said:
        return UserError(
            f"{uri}: no credentials were found, neither in the environment (for S3 AWS_ACCESS_KEY_ID and "
            f"AWS_SECRET_ACCESS_KEY)\nnor from a cloud machine's metadata service: {said}"
        )
    if "RequestTimeTooSkewed" in said:
        return Interrupted(
            f"{uri}/{path}: the store refused access, because this machine's clock is wrong ({said}).\n"
            "Nothing that was committed is lost. Set the clock (NTP), then run the same command again."
        )
    refused = isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError)
    if refused or any(code in said for code in REFUSED):
        return AccessRefused(
            f"{uri}/{path}: the store refused access ({said}).\n"
            f"Nothing that was committed is lost. Renew the credentials, then run the same command again."
        )
    return Interrupted(
        f"{uri}/{path}: the store did not answer ({said}).\n"
        f"Nothing that was committed is lost. Run the same command again when it is back."
    )


def _said(error: Exception) -> str:
    return str(error).partition("\n\nDebug source")[0]
