"""One contract for every store: `create` has one winner, and nothing half written is ever seen under its name."""

import errno
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from obstore.store import GCSStore, MemoryStore

from speed_ray.errors import Interrupted, UserError
from speed_ray.storage.store import LocalFolder, ObjectStore, delete_if_allowed, open_store, read_if_exists
from tests.helpers.s3_proxy import DROP, EXPIRED, Asked, Fate, Proxy, environment, speak_gcs


@pytest.fixture
def open_s3(s3: int, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ObjectStore]:
    """Open a folder of its own on the S3 server, or on one that stands before it."""

    def open_at(port: int = s3, bucket: str = "bucket") -> ObjectStore:
        for name, value in environment(port).items():
            monkeypatch.setenv(name, value)
        return open_store(f"s3://{bucket}/{uuid.uuid4().hex}")

    return open_at


@pytest.fixture
def gcs(s3: int) -> Iterator[ObjectStore]:
    """A folder of its own on what stands for GCS."""
    proxy = Proxy(s3, speak_gcs)
    account = {"gcs_base_url": f"http://127.0.0.1:{proxy.server_port}", "disable_oauth": True}
    account |= dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
    options = {"service_account_key": json.dumps(account), "client_options": {"allow_http": True}}
    yield ObjectStore(GCSStore("bucket", prefix=uuid.uuid4().hex, **options), "gs://bucket")
    proxy.close()


@pytest.fixture(params=["local", "memory", "s3", "gcs"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> LocalFolder | ObjectStore:
    if request.param == "local":
        return open_store(str(tmp_path / "a" / "run"))
    if request.param == "memory":
        return ObjectStore(MemoryStore(), "memory://")
    return request.getfixturevalue("open_s3")() if request.param == "s3" else request.getfixturevalue("gcs")


def test_create_has_one_winner_of_32_racing_threads(store):
    start = threading.Barrier(32)

    def race(number: int) -> bool:
        start.wait()
        return store.create("commits/0.json", b"%d" % number)

    with ThreadPoolExecutor(32) as racers:
        won = list(racers.map(race, range(32)))
    assert won.count(True) == 1
    assert store.get("commits/0.json") == b"%d" % won.index(True)
    assert store.names("commits") == ["0.json"]


def test_create_refuses_other_content_and_knows_its_own_again(store):
    assert store.create("plan.json", b"ours")
    assert not store.create("plan.json", b"theirs")
    assert store.create("plan.json", b"ours")
    assert store.get("plan.json") == b"ours"


def test_put_get_names_delete(store):
    for path in ("attempts/1/b", "attempts/1/a", "attempts/2/x/y", "attempts2/z", "top"):
        store.put(path, path.encode())
    assert store.names("attempts") == ["1/a", "1/b", "2/x/y"]
    assert store.names("nothing/here") == []
    assert store.get("attempts/2/x/y") == b"attempts/2/x/y"
    store.put("top", b"")
    assert store.get("top") == b""
    store.delete("attempts/1/a")
    store.delete("attempts/1/a")
    assert store.names("attempts") == ["1/b", "2/x/y"]
    with pytest.raises(FileNotFoundError):
        store.get("attempts/1/a")
    assert read_if_exists(store, "attempts/1/a") is None


def test_a_large_object_comes_back_whole(store):
    data = os.urandom(12_000_000)  # obstore sends more than 5 MB in parts
    store.put("attempts/large", data)
    assert store.create("large", data)
    assert store.get("attempts/large") == data == store.get("large")


@pytest.fixture
def before_s3(s3: int, open_s3: Callable[..., ObjectStore]) -> Iterator[Callable[..., tuple[ObjectStore, Proxy]]]:
    proxies = []

    def stand(spoil: Callable[[Asked], Fate]) -> tuple[ObjectStore, Proxy]:
        proxies.append(Proxy(s3, spoil))
        return open_s3(proxies[-1].server_port), proxies[-1]

    yield stand
    for proxy in proxies:
        proxy.close()


def test_a_create_whose_response_is_lost_is_still_ours(before_s3):
    store, proxy = before_s3(lambda asked: None if asked.number else DROP)
    assert store.create("commits/0.json", b"attempt 1")
    assert [asked.verb for asked in proxy.seen[:2]] == ["PUT", "PUT"]
    assert not store.create("commits/0.json", b"attempt 2")


def test_a_throttling_store_only_slows_down(before_s3):
    store, proxy = before_s3(lambda asked: 503 if asked.number % 4 else None)
    assert store.create("commits/0.json", b"x")
    store.put("attempts/0", b"y")
    assert store.get("attempts/0") == b"y"
    assert store.names("commits") == ["0.json"]
    assert len(proxy.seen) > 4


def test_a_create_that_meets_another_in_flight_is_decided_by_what_is_there(before_s3):
    """S3 may answer 409 to a conditional write while another, or a deletion, is under way: nothing may be there."""
    store, _ = before_s3(lambda asked: None if asked.number else 409)
    assert store.create("commits/0.json", b"x")
    assert not store.create("commits/0.json", b"y")


@pytest.mark.parametrize("status", [401, 403, EXPIRED])
def test_refused_credentials_say_what_to_do(before_s3, status):
    store, _ = before_s3(lambda asked: status)
    for verb in (store.create, store.put):
        with pytest.raises(Interrupted, match=r"plan\.json: the store refused access .*\n.*Renew the credentials"):
            verb("plan.json", b"x")
    for verb in (store.get, store.names, store.delete):
        with pytest.raises(Interrupted, match="the store refused access"):
            verb("plan.json")


def not_deleted(key: str) -> tuple[int, bytes]:
    """Answer as S3 does to `POST /bucket?delete` from credentials without s3:DeleteObject."""
    error = f"<Error><Key>{key}</Key><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
    return 200, f"<DeleteResult>{error}</DeleteResult>".encode()


@pytest.mark.parametrize("answer", [lambda key: 403, not_deleted], ids=["403", "in the body"])
def test_a_delete_that_is_not_allowed_is_told_apart_from_a_store_that_is_away(before_s3, answer):
    store, proxy = before_s3(lambda asked: None)
    proxy.spoil = lambda asked: answer(f"{store.backend.prefix}/a") if asked.verb == "POST" else None
    store.put("a", b"x")
    assert not delete_if_allowed(store, "a")
    assert store.get("a") == b"x"


def test_a_bucket_that_is_not_there_is_the_users_to_make(open_s3):
    store = open_s3(bucket="nobucket")
    for verb in (store.create, store.put):
        with pytest.raises(UserError, match=r"s3://nobucket/.*plan\.json.*no such bucket"):
            verb("plan.json", b"x")


def test_an_unknown_scheme_names_the_known_ones():
    with pytest.raises(UserError, match=r"'hdfs'.*local path.*s3"):
        open_store("hdfs://name/run")
    with pytest.raises(UserError, match=r"^s3:/: .*$"):
        open_store("s3:/")


@pytest.mark.parametrize("uri", ["s3://[::1/run", "s3://my bucket/run", "//[a/run"])
def test_an_address_that_cannot_be_one_is_refused(uri):
    with pytest.raises(UserError, match=re.escape(uri)):
        open_store(uri)


def test_an_unset_scheme_is_refused():
    with pytest.raises(UserError, match="is the variable in --run set"):
        open_store("://x")


def test_a_local_path_and_its_file_uri_are_one_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    open_store("some run/1").put("a/b", b"x")
    assert open_store(f"file://{tmp_path}/some run/1").get("a/b") == b"x"
    assert open_store(str(tmp_path / "some run" / "1")).get("a/b") == b"x"


def test_a_folder_below_a_regular_file_is_explained(tmp_path):
    (tmp_path / "file").write_text("x")
    store = open_store(str(tmp_path / "file" / "run"))
    for verb in (store.create, store.put):
        with pytest.raises(Interrupted, match=rf"Cannot write {tmp_path}/file/run/plan\.json: .*\n.*run the same"):
            verb("plan.json", b"x")
    with pytest.raises(Interrupted, match="Cannot read"):
        store.get("plan.json")
    assert store.names("commits") == []


def test_a_file_is_no_run(tmp_path):
    (tmp_path / "recipe.yaml").touch()
    with pytest.raises(UserError, match=r"recipe\.yaml is a file\. A run is a folder"):
        open_store(str(tmp_path / "recipe.yaml"))


def test_missing_credentials_are_called_that(monkeypatch):
    """Without any, obstore asks the cloud machine's metadata service, which is nowhere near a laptop."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("speed_ray.storage.store.RETRIES", {"max_retries": 0, "retry_timeout": timedelta(seconds=2)})
    with pytest.raises(UserError, match="no credentials were found, neither in the environment"):
        open_store("s3://some-bucket/runs/first").create("recipe.yaml", b"seed: 1")


def test_an_unfinished_write_is_not_listed(tmp_path):
    store = open_store(str(tmp_path))
    store.put("attempts/0/a", b"x")
    (tmp_path / "attempts/0/.b-1234").write_bytes(b"half")
    assert store.names("attempts") == ["0/a"]


FULL = """
import resource, signal, sys
from speed_ray.errors import Interrupted
from speed_ray.storage.store import open_store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
store = open_store(sys.argv[1])
store.put("attempts/small", b"x" * 1000)
for verb in (store.put, store.create):
    try:
        verb("attempts/large", b"x" * 1001)
    except Interrupted as error:
        print(error)
"""


def test_a_full_disk_interrupts_and_leaves_no_half_file(tmp_path):
    """A limit on the size of files ends a write as a full disk does, after a part of it."""
    done = subprocess.run([sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.count(f"Cannot write {tmp_path}/attempts/large: File too large") == 2
    assert done.stdout.count("Make room") == 2
    assert [path.name for path in (tmp_path / "attempts").iterdir()] == ["small"]


def test_a_file_system_without_hard_links_cannot_hold_a_run(tmp_path, monkeypatch):
    def refuse(*arguments: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(UserError, match=rf"{tmp_path} lies on a file system without hard links \(Operation not"):
        open_store(str(tmp_path)).create("plan.json", b"x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["create", "put"])
def test_a_file_system_that_syncs_no_folder_cannot_hold_a_run(tmp_path, monkeypatch, verb):
    sync = os.fsync

    def refuse(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        sync(handle)

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(UserError, match=r"lies on a file system without fsync of folders \(Invalid argument\)"):
        getattr(open_store(str(tmp_path / "run")), verb)("plan.json", b"x")


@pytest.mark.parametrize("below", ["", "00000000"])
def test_a_folder_that_cannot_be_listed_is_not_an_empty_one(tmp_path, monkeypatch, below):
    """Of an NFS mount that went stale no commit, and no journal, would be seen: what was paid would be asked anew."""
    open_store(str(tmp_path)).put("attempts/00000000/a", b"x")
    scan = os.scandir

    def stale(path: str) -> object:
        if Path(path) == tmp_path / "attempts" / below:
            raise OSError(errno.ESTALE, "Stale file handle", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", stale)
    with pytest.raises(Interrupted, match=rf"Cannot list {tmp_path}/attempts.*: Stale file handle"):
        open_store(str(tmp_path)).names("attempts")


def test_a_folder_that_goes_while_it_is_listed_is_no_failure(tmp_path, monkeypatch):
    store = open_store(str(tmp_path))
    store.put("attempts/0/a", b"x")
    store.put("attempts/1/a", b"x")
    scan = os.scandir

    def gone(path: str) -> object:
        if Path(path).name == "1":
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", gone)
    assert store.names("attempts") == ["0/a"]


def test_what_a_file_system_refuses_is_said_in_a_sentence(tmp_path, monkeypatch):
    store = open_store(str(tmp_path))
    store.put("a", b"x")

    def refuse(*arguments: object, **keywords: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(Interrupted, match=f"Cannot delete {tmp_path}/a: Permission denied"):
        store.delete("a")
    assert not delete_if_allowed(store, "a")
    monkeypatch.setattr(shutil, "copyfile", refuse)
    with pytest.raises(Interrupted, match=f"Cannot copy {tmp_path}/a to {tmp_path}/b: Permission denied"):
        store.download("a", tmp_path / "b")


def test_every_new_folder_is_synced_before_a_file_in_it_counts(tmp_path, monkeypatch):
    """A power cut may undo what was not: a commit must not outlive the folder of the files that it names."""
    synced = []
    sync = os.fsync

    def record(handle: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{handle}")))
        sync(handle)

    monkeypatch.setattr(os, "fsync", record)
    open_store(str(tmp_path / "run")).put("attempts/00000000/a", b"x")
    wanted = [tmp_path, tmp_path / "run", tmp_path / "run/attempts", tmp_path / "run/attempts/00000000"]
    assert [path for path in synced if path.is_dir()] == wanted
