"""Documents a second of `curate`, against datatrove's MinHash pipeline; how many near-duplicates either finds.

    python -m benchmarks.dedup --documents 200000 --memory 100000 1000000

Documents have 60 words; one in five is a copy of another with 5% of its words changed. Both contenders read Parquet,
sketch, bucket, cluster and write Parquet, in two processes or more. What ours does beside that counts against it: all
its other gates, rejects with their reasons, checksums, the commit of every shard. Of n copies n - 1 may go.
`--memory` curates other sizes for their peak of memory alone.

datatrove is measured twice: as it comes, where spaCy finds the words, which is what the figure is of; and with words
split at spaces, which it does not offer, so that its MinHash is seen without spaCy. `make rivals` installs both.
"""

import itertools
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import process, report, rivals
from speed_ray import recipes
from speed_ray.records import EXAMPLE, Row, content_id
from speed_ray.stages import curate, driver_stage
from speed_ray.storage.run import CURATED_EXAMPLES, EXAMPLES, Run
from speed_ray.storage.shard_plan import Plan

WORDS, QUERY, COPIES, CHANGED = 60, 10, 0.2, 0.05
VOCABULARY, POOL = 20_000, 5_000
GOAL, RECALL, PRECISION = 20, 0.95, 0.99
RIVAL = "benchmarks.rival_datatrove"
OVERRIDES = ["synthesize.revise=false", "curate.held_out=0", "curate.examples=null"]


def documents(count: int) -> Iterator[tuple[list[str], int]]:
    """Each document's words, and the number of the first of its cluster."""
    rng = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary = ["".join(rng.choices(letters, k=rng.randint(2, 10))) for _ in range(VOCABULARY)]
    frequent = list(itertools.accumulate(1 / (rank + 10) for rank in range(VOCABULARY)))
    pool: list[tuple[list[str], int]] = []  # what may be copied
    for number in range(count):
        if pool and rng.random() < COPIES:
            words, first = rng.choice(pool)
            yield [rng.choice(vocabulary) if rng.random() < CHANGED else word for word in words], first
        else:
            made = (rng.choices(vocabulary, cum_weights=frequent, k=WORDS), number)
            if len(pool) < POOL:
                pool.append(made)
            else:
                pool[rng.randrange(POOL)] = made
            yield made


def example(number: int, words: list[str]) -> Row:
    """A document as a query and the passage that answers it."""
    return {
        "id": content_id("example", str(number)),
        "row_id": content_id("prompt", str(number)),
        "parent_id": content_id("task", str(number // 5)),
        "kind": "retrieval",
        "topic": "none",
        "language": "English",
        "instruction": "Given a question, find the passage that answers it",
        "query": " ".join(words[:QUERY]),
        "positive": " ".join(words[QUERY:]),
        "negatives": [],
        "model": "none",
    }


def write(run: Run, count: int) -> None:
    """Publish the documents as a run's examples."""
    run.freeze(recipes.load_recipe("miniature", OVERRIDES))
    rows = (example(number, words) for number, (words, _) in enumerate(documents(count)))
    plan = Plan(EXAMPLES, rows=count, shard_rows=2_048)
    driver_stage.publish_rows(
        run.artifact(EXAMPLES), plan, EXAMPLE, (driver_stage.RowResult(row["id"], row, None) for row in rows)
    )


def write_texts(folder: Path, count: int) -> None:
    """Write the documents as datatrove reads them, in two files."""
    folder.mkdir(parents=True)
    texts = [" ".join(words) for words, _ in documents(count)]
    for part in range(2):
        half = range(part * count // 2, (part + 1) * count // 2)
        table = pa.table({"id": [str(number) for number in half], "text": [texts[number] for number in half]})
        pq.write_table(table, folder / f"{part}.parquet", compression="zstd")


def ours(uri: str) -> dict[str, Any]:
    """Curate; this process does nothing else, so that its peak of memory is that of curating."""
    run = Run(uri)
    started = time.perf_counter()
    artifact = curate.publish_curated(run, curate.prepare_curation(run, recipes.load_recipe("miniature", OVERRIDES)))
    seconds = time.perf_counter() - started
    peak = report.peak()  # before the ids, of which there are many
    kept = {row["id"] for row in artifact.records()}
    places = [place for place, row in enumerate(run.artifact(EXAMPLES).records()) if row["id"] in kept]
    return {"seconds": seconds, "peak RSS MB": peak, "kept": places}


def answer(module: str, *arguments: str, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """What a contender says, in a process of its own."""
    said: dict[str, Any] = json.loads(process.module(module, *arguments, environment=environment).splitlines()[-1])
    return said


def row(contender: str, count: int, said: dict[str, Any]) -> dict[str, Any]:
    """One line of the table."""
    clusters = [first for _, first in documents(count)]
    sizes = Counter(clusters)
    kept = Counter(clusters[number] for number in said["kept"])
    right = sum(size - max(kept[first], 1) for first, size in sizes.items())
    dropped = count - len(said["kept"])
    return {
        "contender": contender,
        "documents": count,
        "documents/s": count / said["seconds"],
        "recall": right / (count - len(sizes)),
        "precision": right / max(dropped, 1),
        "peak RSS MB": said["peak RSS MB"],
    }


def main() -> None:
    parser = report.options(__doc__)
    parser.add_argument("--documents", type=int, default=200_000)
    parser.add_argument("--memory", type=int, nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--curate", metavar="RUN", help="curate this run, say how it went, and nothing else")
    options = parser.parse_args()
    if options.curate:
        print(json.dumps(ours(options.curate)))
        return
    details, ratios = [], []
    for turn in range(options.rounds):
        report.say(f"dedup: round {turn + 1} of {options.rounds}")
        found = compared(options.documents)
        details += found
        speeds = {each["contender"]: each["documents/s"] for each in found}
        if len(speeds) > 1:
            ratios.append(speeds["speed_ray"] / speeds["datatrove"])
    details += [curated(count) for count in options.memory]
    figure = sorted(ratios)[len(ratios) // 2] if ratios else None
    mine = details[0]
    met = (
        figure >= GOAL and mine["recall"] >= RECALL and mine["precision"] >= PRECISION if figure is not None else None
    )
    goal = f">= {GOAL}, recall >= {RECALL} at precision >= {PRECISION}"
    report.emit(report.Result("dedup", figure, goal, "documents/s, ours / datatrove", met, details), options.json)


def compared(count: int) -> list[dict[str, Any]]:
    """Ours, then datatrove where it is installed."""
    found = [curated(count)]
    if not rivals.are_installed("datatrove", "spacy"):
        report.say("dedup: no figure, for datatrove and spaCy are not installed: run `make rivals`, then this again")
        return found
    for name, arguments in (("datatrove", ()), ("datatrove, words split at spaces", ("--spaces",))):
        with tempfile.TemporaryDirectory(prefix="dedup-") as folder:
            write_texts(Path(folder) / "texts", count)
            said = answer(RIVAL, folder, *arguments, environment=rivals.environment())
            found.append(row(name, count, said))
    return found


def curated(count: int) -> dict[str, Any]:
    """Ours."""
    with tempfile.TemporaryDirectory(prefix="dedup-") as folder:
        write(Run(folder), count)
        found = row("speed_ray", count, answer("benchmarks.dedup", "--curate", folder))
        manifest = Run(folder).artifact(CURATED_EXAMPLES).manifest()
        assert manifest is not None
        counts = manifest["counts"]
        assert counts["records"] + sum(counts["reasons"].values()) == count, "the funnel does not add up"
        return found


if __name__ == "__main__":
    main()
