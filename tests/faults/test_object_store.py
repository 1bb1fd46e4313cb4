"""A run on an object store that answers late, refuses for a while, or loses what it says."""

import sys
import uuid
from collections.abc import Callable, Iterator

import pytest
from sentence_transformers import SentenceTransformer

from speed_ray.storage.trained_models import Model
from speed_ray.storage.verify import verify
from tests.helpers.paths import ROOT
from tests.helpers.s3_proxy import DROP, EXPIRED, Asked, Fate, Proxy, environment, serve_s3

pytestmark = pytest.mark.slow
SHARDS = 46


@pytest.fixture
def stand_before_s3(monkeypatch) -> Iterator[Callable[..., Proxy]]:
    """Start an S3 server with a proxy before it; the environment names the proxy, as a user's would."""
    server, port = serve_s3()
    proxies: list[Proxy] = []

    def stand(spoil: Callable[[Asked], Fate]) -> Proxy:
        proxies.append(Proxy(port, spoil))
        for name, value in environment(proxies[-1].server_port).items():
            monkeypatch.setenv(name, value)
        return proxies[-1]

    yield stand
    for proxy in proxies:
        proxy.close()
    server.stop()


@pytest.fixture
def uri() -> str:
    """A folder of its own: one process's S3 servers share their buckets."""
    return f"s3://bucket/{uuid.uuid4().hex}"


def is_commit(asked: Asked) -> bool:
    return asked.verb == "PUT" and "/examples/commits/" in asked.path


def test_lost_responses(make_job, drive, prove, nothing_left, stand_before_s3, uri):
    """Of every third commit the response is lost; the job knows it for its own."""
    seen, lost = set(), set()

    def lose(asked: Asked) -> Fate:
        if not is_commit(asked) or asked.path in seen:
            return None
        assert asked.headers["if-none-match"] == "*"
        seen.add(asked.path)
        if len(seen) % 3 != 1:
            return None
        lost.add(asked.path)
        return DROP

    stand_before_s3(lose)
    job = make_job(uri=uri).begin()
    driver = drive(job)
    assert driver.ended() == 0, driver.said()
    assert len(seen) == SHARDS and len(lost) == 16
    prove(job)
    nothing_left(driver)


def test_a_slow_and_throttling_store_only_slows_down(make_job, drive, prove, nothing_left, stand_before_s3, uri):
    """Half a second for every answer, and every fifth a 503; each shard costs a handful of requests."""
    proxy = stand_before_s3(lambda asked: None)
    job = make_job(uri=uri, synthesize__examples=115).begin()
    began = len(proxy.seen)
    proxy.spoil = lambda asked: 503 if asked.number % 5 == 0 else 0.5
    driver = drive(job)
    assert driver.ended() == 0, driver.said()
    proxy.spoil = lambda asked: None
    asked = [each for each in proxy.seen[began:] if each.number % 5]
    of_shards = [each for each in asked if "/examples/" in each.path]
    assert len(of_shards) < 20 * 12, f"{len(of_shards) / 12:.1f} requests a shard"
    prove(job)
    nothing_left(driver)


@pytest.mark.timeout(1500)
@pytest.mark.long
def test_a_run_on_an_object_store(make_whole_job, drive, nothing_left, stand_before_s3, tmp_path, uri):
    """From topics over a junior to an embedder; see interrupted_run.py for what stands in for vLLM."""
    stand_before_s3(lambda asked: None)
    few = {"junior__max_steps": 4, "embedder__max_steps": 4}
    job = make_whole_job(uri=uri, synthesize__generator="junior", synthesize__revise=False, **few)
    moments = tmp_path / "none"
    moments.touch()
    program = [sys.executable, str(ROOT / "tests" / "helpers" / "interrupted_run.py"), str(moments)]
    driver = drive(job, "run", program=program, SPEED_RAY_CACHE=str(tmp_path / "cache"))
    assert driver.ended() == 0, driver.said()
    verdicts = verify(job.run)
    assert all(verdict.holds for verdict in verdicts) and verdicts[-1].artifact == "curated_examples"
    embedder = Model(job.run, "embedder").fetch()
    assert SentenceTransformer(str(embedder), device="cpu").encode(["a text"]).shape == (1, 64)
    nothing_left(driver)


def test_credentials_that_expire_midway(make_job, drive, prove, nothing_left, stand_before_s3, uri):
    """The job ends with a word on what to do, and goes on with fresh ones."""
    commits = 0

    def expire(asked: Asked) -> Fate:
        nonlocal commits
        commits += is_commit(asked)
        return EXPIRED if commits > SHARDS // 2 else None

    proxy = stand_before_s3(expire)
    job = make_job(uri=uri).begin()
    driver = drive(job)
    assert driver.ended() == 3, driver.said()
    assert "the store refused access" in driver.said() and "Renew the credentials" in driver.said(), driver.said()
    assert "Traceback" not in driver.said(), driver.said()
    nothing_left(driver)

    proxy.spoil = lambda asked: None
    driver = drive(job)
    assert driver.ended() == 0, driver.said()
    prove(job)
