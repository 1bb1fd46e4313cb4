"""`ray job submit` with the command that docs/cluster.md names, on a cluster that was started as a user does."""

import pytest

from tests.helpers.tiny_cluster import SUBMIT, Head, Submitted

MEGABYTES = 20


@pytest.mark.slow
def test_a_job_on_a_cluster(ray_folder, make_job, drive, prove):
    head = Head(ray_folder, cpus=4)
    cluster = drive(head, "head", **head.environment)
    cluster.wait_until(lambda: "This is the head" in cluster.said())
    job = make_job().begin()

    submitted = drive(Submitted.script(head, "synthesize", job), "submit", program=SUBMIT, **head.environment)

    assert submitted.ended() == 0, submitted.said()
    assert "next: speed-ray curate" in submitted.said(), "the driver's words do not reach the one who submitted"
    prove(job)
    uploaded = list(ray_folder.glob("session_2*/runtime_resources/working_dir_files/_ray_pkg_*/"))
    assert len(uploaded) == 1
    assert (uploaded[0] / "speed_ray" / "__main__.py").is_file()
    assert not (uploaded[0] / ".venv").exists() and not (uploaded[0] / ".git").exists()
    size = sum(path.stat().st_size for path in uploaded[0].rglob("*") if path.is_file())
    assert size < MEGABYTES * 1_000_000, f"{size / 1e6:.0f} MB are uploaded with every job: see .gitignore"
