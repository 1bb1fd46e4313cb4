"""Two drivers that are killed at every stage of documents make the same rows as one that nobody disturbs."""

import sys
from dataclasses import replace

import pytest

from speed_ray.storage.run import (
    CURATED_EXAMPLES,
    DOCUMENTS,
    EXAMPLES,
    NEIGHBOURS,
    PASSAGE_EMBEDDINGS,
    PASSAGES,
)
from speed_ray.storage.verify import verify
from tests.faults.test_alignment_stopped import contents
from tests.helpers.grounded_run import MINILM
from tests.helpers.passages import TOOLS
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.slow

STAGES = (DOCUMENTS, PASSAGES, PASSAGE_EMBEDDINGS, NEIGHBOURS, EXAMPLES, CURATED_EXAMPLES)
DOCUMENT = "# The {0} number {1}\n\nIt hangs at the {2} wall.\n\n## Care\n\nClean the {0} with oil, {1} drops a {2}.\n"


def test_same_rows_as_unbroken(make_job, drive, tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(24):
        text = DOCUMENT.format(TOOLS[number % len(TOOLS)], number, TOOLS[number * 7 % 9])
        (tmp_path / "in" / f"{number:02}.md").write_text(text)
    (tmp_path / "in" / "broken.md").write_bytes(b"\0\0")
    corpus = {"source": str(tmp_path / "in"), "tokens": 24, "shard_rows": 8, "held_out": 0.2}
    job = make_job(
        topics=None,
        corpus=corpus,
        mix={"retrieval": 1},
        slots={},
        synthesize__examples=None,
        synthesize__contrast=True,
        curate={"reference": MINILM, "mine_negatives": {"count": 1, "by": ["reference", "bm25"]}, "shard_rows": 8},
        embedder={"model": MINILM},
    )
    (tmp_path / "moments").write_text("\n".join(STAGES))
    program = [sys.executable, "-m", "tests.helpers.killed_drivers", str(tmp_path / "moments")]
    driver = drive(job, "run", program=program, PYTHONPATH=str(ROOT))
    assert driver.ended() == 0, driver.said()

    unbroken = replace(job, uri=f"{job.uri}-unbroken")
    assert all(verdict.holds for each in (job, unbroken) for verdict in verify(each.run))
    for name in STAGES:
        assert len(unbroken.run.artifact(name).record_files()) > 1, f"{name} has one shard: nobody died between two"
        assert contents(job, name) == contents(unbroken, name), name
