"""A job that is told to end has the shards at work committed, begins no other, and ends within its grace."""

import signal

import pytest

pytestmark = pytest.mark.slow
LONG = {"engine": "simulated", "prefill": 1e9, "decode": 1e9, "max_tokens_per_stream": 60.0, "output_tokens": 120}


def test_what_is_at_work_is_committed(make_job, drive, nothing_left, tmp_path):
    """An answer takes 2 s: cut off, the shards at work would have been asked for in vain."""
    asked = tmp_path / "asked"
    asked.mkdir()
    job = make_job(generator={**LONG, "max_concurrency": 16, "request_log": str(asked)}).begin()
    driver = drive(job)
    driver.wait_until(lambda: job.commits() >= 4)
    driver.process.send_signal(signal.SIGTERM)
    before = job.commits()
    assert driver.ended() == 3, driver.said()
    assert "To go on, run the same command again." in driver.said() and "Traceback" not in driver.said()
    rows = [row for file in asked.iterdir() for row in file.read_text().split()]
    assert before < job.commits() < 46
    assert len(rows) == len(set(rows)) == 10 * job.commits()
    nothing_left(driver)


def test_a_grace_that_is_over(make_job, drive, nothing_left, tmp_path):
    asked = tmp_path / "asked"
    asked.mkdir()
    endless = {**LONG, "max_tokens_per_stream": 0.5, "request_log": str(asked)}
    job = make_job(generator=endless, synthesize__pool={"grace_seconds": 1.0}).begin()
    driver = drive(job)
    driver.wait_until(lambda: list(asked.iterdir()))
    driver.process.send_signal(signal.SIGTERM)
    assert driver.ended() == 3, driver.said()
    assert "To go on, run the same command again." in driver.said()
    nothing_left(driver)


def test_told_to_end_while_ray_starts(make_job, drive, nothing_left):
    """Ray's own handler is at work then, which would end the process with a code of its own."""
    job = make_job(slow=True).begin()
    driver = drive(job)
    driver.wait_until(lambda: "examples: 0 of 46 shards" in driver.said())
    driver.wait_until(lambda: any("gcs_server" in process.name() for process in driver.left()))
    driver.process.send_signal(signal.SIGTERM)
    assert driver.ended() == 3, driver.said()
    assert "To go on, run the same command again." in driver.said() and "Traceback" not in driver.said()
    nothing_left(driver)
