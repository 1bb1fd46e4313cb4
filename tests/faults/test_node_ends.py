"""A node ends with its command, however that ends, and takes no other node with it."""

import signal

import pytest

from tests.helpers.tiny_cluster import Head, Joined, named

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_a_node_ends_and_no_other(ray_folder, drive, nothing_left, number):
    head = Head(ray_folder, cpus=0)
    cluster = drive(head, "head", **head.environment)
    cluster.wait_until(lambda: "This is the head" in cluster.said())
    staying, leaving = (drive(Joined(head), "join", **head.environment) for _ in range(2))
    for node in (staying, leaving):
        node.wait_until(lambda node=node: "This node is part of" in node.said())

    leaving.process.send_signal(number)

    assert leaving.ended() == 0, leaving.said()
    nothing_left(leaving)
    assert staying.process.poll() is None and raylets(staying) == 1
    assert cluster.process.poll() is None and raylets(cluster) == 1
    cluster.process.send_signal(number)
    assert cluster.ended() == 0, cluster.said()
    nothing_left(cluster)


def test_a_killed_command_leaves_no_node(ray_folder, drive, nothing_left):
    head = Head(ray_folder, cpus=0)
    cluster = drive(head, "head", **head.environment)
    cluster.wait_until(lambda: raylets(cluster) == 1)
    cluster.kill()
    nothing_left(cluster)


def raylets(node) -> int:
    return len(named(node, "raylet/raylet"))
