"""An engine that dies takes its actor with it; Ray starts another, and every row finishes."""

import pytest

pytestmark = pytest.mark.slow


def test_every_row_finishes(make_job, drive, prove, nothing_left, tmp_path):
    job = make_job(generator__faults={"die": 0.01}, synthesize__pool={"min_size": 2, "max_size": 2}).begin()
    deaths = tmp_path / "deaths"

    driver = drive(job, SPEED_RAY_DEATHS=str(deaths))

    assert driver.ended() == 0, driver.said()
    assert len(list(deaths.iterdir())) > 1, "no engine died"
    prove(job)
    nothing_left(driver)
