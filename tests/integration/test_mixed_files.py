"""A folder of a thousand mixed files, a few of them broken: `run --until curate` leaves none unaccounted for."""

import random
from pathlib import Path

import pytest

from speed_ray import pipeline
from speed_ray.documents.faults import MAX_BYTES
from speed_ray.recipes.schema import Recipe
from speed_ray.storage.run import CURATED_EXAMPLES, DOCUMENTS, EXAMPLES, PASSAGES, Run
from speed_ray.storage.shards import RECORDS, REJECTS
from speed_ray.storage.verify import verify
from tests.helpers.grounded_run import MINILM
from tests.helpers.passages import TOOLS

pytestmark = pytest.mark.slow

FILES = 1_000
SHAPES = {
    ".md": "# About the {0}\n\n{1}\n",
    ".txt": "{1}",
    ".html": "<title>The {0}</title><nav>Home</nav><main><p>{1}</p></main>",
}
TOO_LARGE = MAX_BYTES + 1  # zeros: a file that takes no disk
BROKEN = {
    "latin.md": ("not_utf8", "Caf\xe9 ouvert le dimanche".encode("latin-1")),
    "wide.txt": ("not_utf8", "Hello there".encode("utf-16")),
    "picture.txt": ("binary", b"\x89PNG\r\n\0\0\0\rIHDR"),
    "report.docx": ("other_format", b"PK\3\4"),
    "empty.txt": ("no_text", b""),
    "menu.html": ("no_text", b"<title></title><nav>Home</nav>"),
    "huge.txt": ("too_large", None),
    "german.txt": (
        "wrong_language",
        "Die Bibliothek verleiht ihre Bücher an Leserinnen und Leser jeden Alters.".encode(),
    ),
}


def text(number: int) -> str:
    """Two sentences that no other number gives."""
    rng = random.Random(number)
    tools = [rng.choice(TOOLS) for _ in range(8)]
    first = "Behind the {} and the {} stood a {} that nobody took from its {} for {} years.".format(*tools[:4], number)
    return first + " The {} was sold with an old {}, but its {} and the {} were not.".format(*tools[4:])


def write_files(folder: Path) -> dict[str, str]:
    """Write the folder. Returns the reasons for which files, or lines of one, are turned away."""
    (folder / "below").mkdir(parents=True)
    turned_away = {"copy.txt": "duplicate", "notes.jsonl, line 2": "too_large"}
    for name, (reason, content) in BROKEN.items():
        (folder / name).write_bytes(content or b"")
        turned_away[name] = reason
    good = FILES - len(BROKEN) - 2
    for number in range(good):
        shape = list(SHAPES)[number % len(SHAPES)]
        path = folder / ("below" if number % 10 == 0 else "") / f"{number:04}{shape}"
        path.write_text(SHAPES[shape].format(TOOLS[number % len(TOOLS)], text(number)))
    (folder / "copy.txt").write_text(text(1))  # and so says 0001.txt, which is read before it
    with (folder / "huge.txt").open("r+b") as file:
        file.truncate(TOO_LARGE)
    with (folder / "notes.jsonl").open("wb") as file:
        file.write(b'{"_id": "first", "text": "The first line of the notes is about a lighthouse."}\n')
        file.seek(TOO_LARGE, 1)
        file.write(b'\n{"_id": "last", "text": "In the third line stands how a clock is wound."}\n')
    return turned_away


def test_every_file_is_accounted_for(tmp_path: Path) -> None:
    turned_away = write_files(tmp_path / "in")
    run = Run(str(tmp_path / "run"))
    recipe = Recipe.model_validate(
        {
            "corpus": {"source": str(tmp_path / "in"), "tokens": 64},
            "generator": {"engine": "simulated", "prefill": 1e9, "decode": 1e9, "max_tokens_per_stream": 1e9},
            "synthesize": {"per_passage": 1},
            "curate": {"mine_negatives": 1},
            "embedder": {"model": MINILM},
        }
    )
    for job in pipeline.up_to("curate", recipe):
        job(run, recipe)

    documents = run.artifact(DOCUMENTS)
    records, rejects = (
        [row for commit in documents.commits() if role in commit.files
         for row in documents.read(commit.files[role].path).to_pylist()]
        for role in (RECORDS, REJECTS)
    )  # fmt: skip
    assert {row["detail"].split(": ")[0]: row["reason"] for row in rejects} == turned_away
    sources = [row["source"] for row in records] + list(turned_away)
    written = {str(path.relative_to(tmp_path / "in")) for path in (tmp_path / "in").rglob("*") if path.is_file()}
    assert len(sources) == FILES + 2, "of one file each of the three lines is a document, or none"
    assert len(written) == FILES and {source.split(", line")[0] for source in sources} == written
    assert all(verdict.holds for verdict in verify(run))
    counts = {
        name: run.artifact(name).manifest()["counts"] for name in (DOCUMENTS, PASSAGES, EXAMPLES, CURATED_EXAMPLES)
    }
    for name, before in ((PASSAGES, DOCUMENTS), (EXAMPLES, PASSAGES), (CURATED_EXAMPLES, EXAMPLES)):
        assert counts[name]["accepted"] + counts[name]["rejected"] == counts[before]["accepted"] > FILES / 2, name
