"""A node that is lost takes its actors with it; the others finish the run."""

import pytest
from ray.cluster_utils import Cluster

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster():
    """Three nodes on this machine; the head holds no engine."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


def test_one_of_three_nodes_killed(make_job, drive, prove, cluster):
    nodes = [cluster.add_node(num_cpus=2), cluster.add_node(num_cpus=2)]
    job = make_job(slow=True, synthesize__pool={"min_size": 2, "max_size": 2, "num_cpus": 1.5}).begin()

    driver = drive(job, RAY_ADDRESS=cluster.address)
    driver.wait_until(lambda: job.commits() >= 10)
    cluster.remove_node(nodes[0], allow_graceful=False)

    assert job.commits() < 46, "the node was killed too late to prove anything"
    cluster.add_node(num_cpus=2)
    assert driver.ended() == 0, driver.said()
    prove(job)
