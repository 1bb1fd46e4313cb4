"""Files that are torn, flipped, deleted or strangers: noticed or ignored, never read, and made anew."""

import json
from pathlib import Path

import pytest

from speed_ray.cli import main

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_session")]


def committed_file(job, shard: int) -> Path:
    """The records of a committed shard."""
    commit = json.loads((job.examples / f"commits/{shard:08d}.0.json").read_bytes())
    return job.examples / commit["files"]["records"]["path"]


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_damage_before_publication(make_job, prove):
    job = make_job().begin().half_done(20)
    torn(committed_file(job, 1))
    flipped(committed_file(job, 2))
    committed_file(job, 3).unlink()
    (job.examples / "commits/00000004.0.json").unlink()
    for stray in ("commits/notes.json", "commits/README", "commits/00000099.json", "attempts/00000000/old.parquet"):
        (job.examples / stray).write_bytes(b"not ours")

    job.synthesize()

    prove(job)
    commits = job.examples / "commits"
    assert sorted(path.name for path in commits.glob("*.void")) == [f"0000000{shard}.0.void" for shard in (1, 2, 3)]
    assert job.attempts() == 46 + 4, "only what was damaged or deleted is done again"


@pytest.mark.parametrize("damage", [torn, flipped, Path.unlink], ids=["torn", "flipped", "deleted"])
def test_damage_after_publication(make_job, prove, capsys, damage):
    job = make_job().begin().half_done(45)
    job.synthesize()
    assert exit_code("verify", job.uri) == 0
    path = committed_file(job, 7)
    damage(path)

    assert exit_code("verify", job.uri) == 1
    assert str(path) in capsys.readouterr().out
    assert exit_code("verify", job.uri, "--repair") == 1
    job.synthesize()

    prove(job)
    assert job.attempts() == 46 + 1, "the repair made more than the damaged shard anew"


def exit_code(*arguments: str) -> int:
    """Run `speed-ray` in this process."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return int(ended.value.code or 0)
