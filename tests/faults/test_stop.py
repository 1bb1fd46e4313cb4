"""A job that is asked to stop, or that sees nothing happen, ends with a code and a way to go on."""

import signal

import pytest

pytestmark = pytest.mark.slow


def test_stopped_and_gone_on(make_job, drive, prove, nothing_left):
    job = make_job(slow=True).begin()

    for number, commits in ((signal.SIGINT, 8), (signal.SIGTERM, 16)):
        driver = drive(job)
        driver.wait_until(lambda commits=commits: job.commits() >= commits)
        driver.process.send_signal(number)
        assert driver.ended() == 3, driver.said()
        assert "To go on, run the same command again." in driver.said()
        assert "Traceback" not in driver.said(), driver.said()
        assert job.commits() < 46, "the driver was stopped too late to prove anything"
        nothing_left(driver)

    driver = drive(job)
    assert driver.ended() == 0, driver.said()
    prove(job)


def test_watchdog(make_job, drive, prove, nothing_left):
    job = make_job(generator__faults={"hang": 1.0}, synthesize__pool={"watchdog_minutes": 0.2}).begin()

    driver = drive(job)

    assert driver.ended() == 4, driver.said()
    assert "no shard was committed for 0.2 minutes" in driver.said()
    assert "The cluster has: CPU" in driver.said()
    assert "Traceback" not in driver.said(), driver.said()
    nothing_left(driver)
    healthy = make_job()  # faults are no part of a run's identity
    driver = drive(healthy)
    assert driver.ended() == 0, driver.said()
    prove(healthy)
