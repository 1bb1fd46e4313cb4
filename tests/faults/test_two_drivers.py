"""Two drivers at once on one run, each with a Ray of its own: both end well, and every row is there once."""

import json

import pytest

pytestmark = pytest.mark.slow


def test_both_end_well(make_job, drive, prove, nothing_left):
    job = make_job(slow=True).begin()

    drivers = [drive(job), drive(job)]

    assert [driver.ended() for driver in drivers] == [0, 0], "\n".join(driver.said() for driver in drivers)
    prove(job)
    published = json.loads((job.examples / "_MANIFEST.json").read_bytes())["shards"]
    assert [shard["shard"] for shard in published] == list(range(46))
    for driver in drivers:
        nothing_left(driver)
