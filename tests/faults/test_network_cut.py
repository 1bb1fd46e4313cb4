"""Two hosts lose the link between them in the middle of a synthesis: the job goes on, or ends with a code, to go on.

The engine beyond the cut sees the storage as before, and goes on writing shards that others are given meanwhile. See
test_training_on_ray.py for a training.
"""

import time
from dataclasses import replace

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
POOL = {"min_size": 2, "max_size": 2, "num_cpus": 1.5}  # an engine on each host


def test_a_link_that_is_soon_given_back(cluster_of_two, make_job, prove):
    node = cluster_of_two.begin()
    job = make_job(slow=True, synthesize__pool=POOL).begin()
    driver = cluster_of_two.submit(job, "synthesize")
    driver.wait_until(lambda: job.commits() >= 8)

    cluster_of_two.cut()
    time.sleep(1)  # Ray waits for 6
    assert job.commits() < 40, "the link was cut too late to prove anything"
    cluster_of_two.mend()

    assert driver.ended() == 0, driver.said()
    prove(job)
    assert node.process.poll() is None, node.said()


def test_a_node_that_is_given_up_joins_again(cluster_of_two, make_job, prove, nothing_left):
    node = cluster_of_two.begin()
    job = make_job(slow=True, synthesize__pool=POOL).begin()
    driver = cluster_of_two.submit(job, "synthesize")
    driver.wait_until(lambda: job.commits() >= 8)

    cluster_of_two.cut()
    assert job.commits() < 40, "the link was cut too late to prove anything"
    driver.wait_until(cluster_of_two.has_given_up)
    cluster_of_two.mend()
    assert node.ended() == 3, "a node that the cluster has given up goes on as if it belonged to it"
    assert "run the same command again" in node.said()
    nothing_left(node)
    cluster_of_two.join()

    assert driver.ended() == 0, driver.said()
    prove(job)


@pytest.mark.long
def test_a_link_that_stays_cut(cluster_of_two, make_job, prove):
    cluster_of_two = replace(cluster_of_two, head=replace(cluster_of_two.head, cpus=0))  # all work is beyond the cut
    node = cluster_of_two.begin()
    job = make_job(slow=True, synthesize__pool={"num_cpus": 1.5, "watchdog_minutes": 1}).begin()
    driver = cluster_of_two.submit(job, "synthesize")
    driver.wait_until(lambda: job.commits() >= 8)

    cluster_of_two.cut()

    assert driver.ended() in (3, 4), driver.said()
    assert "Traceback" not in driver.said(), driver.said()
    assert job.commits() < 46, "the link was cut too late to prove anything"
    cluster_of_two.mend()
    assert node.ended() == 3, node.said()
    cluster_of_two.join()
    driver = cluster_of_two.submit(job, "synthesize")
    assert driver.ended() == 0, driver.said()
    prove(job)
