"""A cluster without a node but its head grows for a job, and shrinks when the work is done.

The nodes are those of Ray's own fake provider, behind its autoscaler v2: real raylets on this machine. Ray's own
AutoscalingCluster would begin and end with `ray stop --force`, for every Ray of the machine.
"""

import json

import pytest

from tests.helpers.tiny_cluster import Head, named

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
MOST = 2  # nodes beside the head
HEAD = "fffffffffffffffffffffffffffffffffffffffffffffffffff00000"  # the fake provider's own name for it
# 40 s for one engine. Ray Data adds a node where, for 10 s, more than three quarters of all were in use.
SLOW = {"engine": "simulated", "prefill": 1e9, "decode": 1e9, "max_tokens_per_stream": 300.0, "max_concurrency": 16}
EMPTY = ("setup_commands", "head_setup_commands", "worker_setup_commands", "cluster_synced_files")
AUTOSCALER = {
    "RAY_FAKE_CLUSTER": "1",
    "RAY_enable_autoscaler_v2": "1",
    "RAY_CLOUD_INSTANCE_ID": HEAD,
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD,
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
}


def config(address: str) -> dict:
    """Of a cluster that may have two nodes, each of two CPUs, for as long as they are busy."""
    return {
        "cluster_name": "tests",
        "max_workers": MOST,
        "idle_timeout_minutes": 0.05,
        "upscaling_speed": 100.0,
        "provider": {
            "type": "external",  # "fake_multinode" reads defaults from a file that Ray's wheel has not got
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "gcs_address": address,
            "head_node_id": HEAD,
            "launch_multiple": True,
            "disable_node_updaters": True,
        },
        **{key: [] for key in EMPTY},
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "synthesis": {"resources": {"CPU": 2}, "node_config": {}, "min_workers": 0, "max_workers": MOST},
        },
    }


def test_a_pool_grows_from_no_node_and_leaves_none(ray_folder, make_job, drive, prove):
    file = ray_folder / "autoscaling.yaml"
    head = Head(ray_folder, cpus=0, options=(f"--autoscaling-config={file}",))
    file.write_text(json.dumps(config(head.address)))
    cluster = drive(head, "head", **head.environment, **AUTOSCALER)
    cluster.wait_until(lambda: "This is the head" in cluster.said())
    job = make_job(synthesize__pool={"min_size": 1, "max_size": MOST, "num_cpus": 2}, generator=SLOW).begin()
    assert nodes(cluster) == 0

    refused = make_job("refused", synthesize__pool={"num_gpus": 1}).begin()
    driver = drive(refused, RAY_ADDRESS=head.address, **head.environment)
    assert driver.ended() == 2, driver.said()
    assert "no autoscaler is adding one" in driver.said() and nodes(cluster) == 0, driver.said()

    driver = drive(job, RAY_ADDRESS=head.address, **head.environment)
    most = 0

    def ended() -> bool:
        nonlocal most
        most = max(most, nodes(cluster))
        return driver.process.poll() is not None

    cluster.wait_until(ended)

    assert driver.ended() == 0, driver.said()
    prove(job)
    assert most == MOST, f"the cluster grew to {most} nodes"
    cluster.wait_until(lambda: nodes(cluster) == 0)


def nodes(cluster) -> int:
    """Raylets beside the head's own."""
    return len(named(cluster, "raylet/raylet")) - 1
