"""`ray job submit` with the command that jobs/synthesize.py names, on a cluster that was started as a user does."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PORTS = (
    "port",
    "object-manager-port",
    "node-manager-port",
    "ray-client-server-port",
    "dashboard-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "runtime-env-agent-port",
    "metrics-export-port",
)
MEGABYTES = 20


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture
def cluster(tmp_path, monkeypatch) -> Iterator[tuple[str, Path]]:
    """A head node on ports of its own: the address of its jobs, and its folder.

    It has a home of its own too. Where an earlier local Ray left a token in the user's, `ray start` asks for it from
    everybody, and `ray job submit` (2.60) brings it along only where RAY_AUTH_MODE is set.
    """
    monkeypatch.setenv("HOME", str(tmp_path))
    if os.environ.get("RAY_AUTH_MODE") == "token":  # as after an earlier test whose Ray ran in this process
        subprocess.run([BIN / "ray", "get-auth-token", "--generate"], stdout=subprocess.DEVNULL, check=True)
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    folder = tempfile.mkdtemp(prefix="ray-")  # not pytest's: a Unix socket's path holds 107 characters
    process = subprocess.Popen(
        [
            *(BIN / "ray", "start", "--head", "--block", "--num-cpus=4", f"--temp-dir={folder}"),
            *("--node-ip-address=127.0.0.1", "--disable-usage-stats", "--min-worker-port=0", "--max-worker-port=0"),
            *(f"--{name}={port}" for name, port in ports.items()),
        ],
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"},  # the `python` of a job is the cluster's
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    yield f"http://127.0.0.1:{ports['dashboard-port']}", Path(folder)
    os.killpg(process.pid, signal.SIGTERM)
    process.wait()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_a_job_on_a_cluster(make_job, prove, cluster):
    address, folder = cluster
    job = make_job().begin()
    wait_for(address)

    submit = [BIN / "ray", "job", "submit", "--address", address, "--working-dir", ".", "--"]
    options = job.arguments("synthesize")[1:]
    ended = subprocess.run(
        [*submit, "python", "jobs/synthesize.py", *options], cwd=ROOT, capture_output=True, text=True
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "next: speed-ray curate" in ended.stdout, "the driver's words do not reach the one who submitted"
    prove(job)
    uploaded = list(folder.glob("session_2*/runtime_resources/working_dir_files/_ray_pkg_*/"))
    assert len(uploaded) == 1
    assert (uploaded[0] / "jobs" / "synthesize.py").is_file()
    assert not (uploaded[0] / ".venv").exists() and not (uploaded[0] / ".git").exists()
    size = sum(path.stat().st_size for path in uploaded[0].rglob("*") if path.is_file())
    assert size < MEGABYTES * 1_000_000, f"{size / 1e6:.0f} MB are uploaded with every job: see .gitignore"


def wait_for(address: str) -> None:
    """Wait until the cluster takes jobs, and give up with its own words."""
    for _ in range(30):
        asked = subprocess.run([BIN / "ray", "job", "list", "--address", address], capture_output=True, text=True)
        if asked.returncode == 0:
            return
    raise AssertionError(f"the cluster takes no jobs: {asked.stderr[-1000:]}")
