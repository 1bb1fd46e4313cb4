"""A full disk stops the job with everything kept; with more room the same command finishes."""

import subprocess

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MB in memory."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"this user may not mount a small disk: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def test_full_then_larger(make_job, drive, prove, nothing_left, small_disk):
    job = make_job(uri=str(small_disk / "run")).begin()

    driver = drive(job)
    assert driver.ended() == 3, driver.said()
    assert f"Cannot write {job.examples}" in driver.said()
    assert "No space left on device" in driver.said()
    assert "Make room or set permissions, then run the same command again." in driver.said()
    assert "Traceback" not in driver.said(), driver.said()
    nothing_left(driver)
    assert 0 < job.commits() < 46

    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    driver = drive(job)
    assert driver.ended() == 0, driver.said()
    prove(job)
