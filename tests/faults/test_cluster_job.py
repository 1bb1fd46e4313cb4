"""A run on a cluster of three nodes that loses one of them, and then its driver: the same job, submitted again."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.tiny_cluster import SUBMIT, Head, Joined, Submitted, lose

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
UNTIL = ("--until", "synthesize")  # from topics on; what comes after needs models


def test_a_node_and_the_driver_killed(ray_folder, make_job, drive, prove):
    head = Head(ray_folder, cpus=0)
    cluster = drive(head, "head", **head.environment)
    cluster.wait_until(lambda: "This is the head" in cluster.said())
    nodes = [drive(Joined(head), "join", **head.environment) for _ in range(2)]
    for node in nodes:
        node.wait_until(lambda node=node: "This node is part of" in node.said())
    job = make_job(slow=True, synthesize__pool={"min_size": 2, "max_size": 2, "num_cpus": 1.5})
    command = Submitted.script(head, "run", job, *UNTIL)

    submitted = drive(command, "run", program=SUBMIT, **head.environment)
    submitted.wait_until(lambda: job.commits() >= 8)
    lose(nodes[0])
    submitted.wait_until(lambda: job.commits() >= 20)
    (driver,) = (process for process in cluster.left() if process.cmdline()[1:2] == ["jobs/run.py"])
    driver.kill()
    assert submitted.ended() != 0, submitted.said()
    assert job.commits() < 46, "the driver was killed too late to prove anything"
    submitted = drive(command, "run", program=SUBMIT, **head.environment)

    assert submitted.ended() == 0, submitted.said()
    assert "next: speed-ray" in submitted.said(), "the driver's words do not reach the one who submitted"
    prove(job)
    speed_ray = Path(sys.executable).with_name("speed-ray")
    assert subprocess.run([speed_ray, "verify", job.uri], stdout=subprocess.DEVNULL).returncode == 0
