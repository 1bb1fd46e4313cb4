"""A job at an endpoint that refuses, costs too much, fails now and then; and a driver that is killed while it pays."""

import pytest

from tests.helpers.tiny_endpoint import asked, mock

pytestmark = pytest.mark.slow
IN_FLIGHT = 8
AT_ONCE = 4  # shards of 100 rows
UNKEPT = 15  # replies of a shard that no journal holds yet, at most


def at(url: str, **more) -> dict:
    return {"engine": "openai", "model": "mock", "base_url": url, "max_concurrency": IN_FLIGHT, **more}


def paid(job) -> int:
    """The calls whose answers count."""
    return sum(commit.counts.calls for commit in job.run.artifact("examples").commits())


@pytest.mark.parametrize(
    ("fault", "code", "named"),
    [
        (("--always", "401"), 2, "let generator.api_key_env name the environment variable that holds one"),
        (("--share-html", "1"), 2, "is a chat completion: check generator.base_url"),
    ],
)
def test_what_an_endpoint_will_never_do_ends_the_job(make_job, drive, fault, code, named):
    with mock(*fault) as url:
        driver = drive(make_job(generator=at(url)).begin())
        assert driver.ended() == code
    assert named in driver.said() and "Traceback" not in driver.said()


def test_a_budget_that_is_used_up_and_raised(make_job, drive, prove):
    with mock("--latency-ms", "1") as url:
        driver = drive(make_job(generator=at(url, budget={"calls": 100})).begin())
        assert driver.ended() == 3
        assert "generator.budget.calls (100 of 100 used)" in driver.said() and "Traceback" not in driver.said()
        assert asked(url)["requests"] == 100
        richer = make_job(generator=at(url, budget={"calls": 10_000}))
        assert drive(richer).ended() == 0
        sent = asked(url)["requests"]
    prove(richer)
    assert sent == paid(richer) <= 10_000, "what the first budget bought was bought again"


def test_every_row_ends_once_at_an_endpoint_that_fails_now_and_then(make_job, drive, prove):
    faults = ("--share-429", "0.1", "--share-500", "0.02", "--share-drop", "0.02", "--share-html", "0.02")
    with mock("--latency-ms", "5", *faults) as url:
        job = make_job(generator=at(url)).begin()
        driver = drive(job)
        assert driver.ended() == 0, driver.said()
        assert asked(url)["outcomes"]["429"] > 20
    assert "trying again" in driver.said(), "an actor's retries are not seen where the job was started"
    prove(job)


def test_a_kill_pays_for_few_answers_twice(make_job, drive, prove):
    with mock("--latency-ms", "50") as url:
        job = make_job(generator=at(url), synthesize__shard_rows=100).begin()
        driver = drive(job)
        driver.wait_until(lambda: asked(url)["requests"] >= 230)
        driver.kill()
        assert job.commits() < 5, "the driver was killed too late to prove anything"
        assert drive(job).ended() == 0
        sent = asked(url)["requests"]
    prove(job)
    assert sent - paid(job) <= IN_FLIGHT + AT_ONCE * UNKEPT
