"""A worker that is killed around any write of its own costs its attempts, never a row."""

from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_session")]


@pytest.mark.parametrize("verb", ["put", "create"])
@pytest.mark.parametrize("moment", ["before", "during", "after"])
def test_killed_around_a_write(make_job, prove, verb, moment):
    job = make_job(synthesize__examples=230).begin()
    note = Path(job.uri) / f".die-{moment}-{verb}"
    note.touch()

    job.synthesize()

    assert not note.exists(), "no worker took the note: nobody was killed"
    prove(job)
