"""Money under kills: restarted actors and drivers side by side never ask for more than the budget, nor twice."""

import signal

import psutil
import pytest

from speed_ray.executor.usage import spending_of
from tests.helpers.tiny_endpoint import asked, mock

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
BUDGET, ROWS = 200, 460


def at(url: str, **more) -> dict:
    return {"engine": "openai", "model": "mock", "base_url": url, "max_concurrency": 8, **more}


def charged(job) -> int:
    return spending_of(job.run, "generator").balance().charged.calls


def kill_actor(driver) -> None:
    """Kill the driver's engine actor, once it has one."""
    actors = []
    while not actors:
        actors = [process for process in driver.left() if "EngineActor" in " ".join(process.cmdline())]
        actors += [process for process in driver.left() if "MapWorker" in " ".join(process.cmdline())]
    for actor in actors:
        try:
            actor.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue


def test_a_budget_outlives_its_actors(make_job, drive):
    with mock("--latency-ms", "100") as url:
        job = make_job(generator=at(url, budget={"calls": BUDGET})).begin()
        driver = drive(job)
        for reached in (30, 70):
            driver.wait_until(lambda reached=reached: asked(url)["requests"] >= reached)
            kill_actor(driver)
        assert driver.ended() == 3, driver.said()
        requests = asked(url)["requests"]
    assert 70 < requests <= charged(job) <= BUDGET, driver.said()


def test_two_drivers_share_the_rows_and_the_budget(make_job, drive, prove):
    with mock("--latency-ms", "50") as url:
        job = make_job(generator=at(url, budget={"calls": ROWS})).begin()
        drivers = [drive(job), drive(job)]
        ends = [driver.ended() for driver in drivers]
        assert ends == [0, 0], [driver.said() for driver in drivers]
        requests = asked(url)["requests"]
    assert requests == ROWS == charged(job), "two drivers paid for one row"
    prove(job)
