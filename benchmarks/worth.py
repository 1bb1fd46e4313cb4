"""Measure which examples the gates of `score` refuse: of what a small unaligned model writes, and of people's.

    python -m benchmarks.worth --shared ../shared/data

SmolLM2-135M is teacher and generator of SPEED's own recipe, without alignment, for eight real topics: what it writes
cannot be used. People's pairs are the titles of CISI's abstracts with these, the first lines of scipy's docstrings
with their descriptions, and the pairs of STS-B above 4. Both go through the jobs `curate` and `score`.
"""

import csv
import json
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import embedding, report
from jobs.write_docstrings import Section, sections
from speed_ray import pipeline, recipes
from speed_ray.console.judge_report import gate_numbers_of
from speed_ray.curation import gates
from speed_ray.recipes.schema import Recipe
from speed_ray.records import Row
from speed_ray.storage.run import CURATED_EXAMPLES, SCORED_EXAMPLES, Run

TOPICS = 8
PEOPLE = {"CISI titles": 200, "first lines of docstrings": 200, "STS-B above 4": 100}
SMOLLM2 = {
    "engine": "vllm",
    "model": "package://smollm2",
    "max_concurrency": 64,
    "engine_kwargs": {"max_model_len": 2_048, "dtype": "float32", "kv_cache_memory_bytes": 2**31},
}


def recipe(topics: Path | None = None, **written: Any) -> Recipe:
    """Return SPEED's recipe with judges: of SmolLM2 as teacher and generator, or of what people wrote."""
    engine = SMOLLM2 if topics else {"engine": "scripted"}
    judged = {"curate": {"reference": "package://minilm", "held_out": 0.0}, "score": {}}
    asked = {"topics": {"source": str(topics or "topics.txt")}, "teacher": engine, "generator": engine}
    return recipes.validate({**asked, **judged, **written}, "the benchmark")


def people_pairs(shared: Path) -> dict[str, list[Row]]:
    """Draw pairs that people wrote, by where they come from."""
    cisi = [json.loads(line) for line in (shared / "cisi/corpus.jsonl").read_text(encoding="utf-8").splitlines()]
    titled = [(row["title"], row["text"]) for row in cisi if row["title"] and row["text"]]
    documented = [(each.title, each.body) for each in sections(["scipy"])]
    with (shared / "stsb-en-dev.csv").open(encoding="utf-8", newline="") as file:
        alike = [(row[0], row[1]) for row in csv.reader(file) if float(row[2]) > 4]
    found = dict(zip(PEOPLE, (titled, documented, alike), strict=True))
    return {
        name: [_row(name, *pair) for pair in random.Random(0).sample(pairs, min(PEOPLE[name], len(pairs)))]
        for name, pairs in found.items()
    }


def _row(source: str, query: str, positive: str) -> Row:
    row = embedding.example(Section(source, "", query, positive))
    return {**row, "parent_id": row["id"], "kind": "sts" if source.startswith("STS") else "retrieval"}


def judge_people(run: Run, rows: Sequence[Row]) -> None:
    """Curate and score pairs that people wrote."""
    embedding.write_examples(run, rows)
    for job in (pipeline.curate, pipeline.score):
        job(run, recipe())


def refusals(name: str, run: Run) -> dict[str, Any]:
    """Count what each gate alone refuses of a run's curated examples, and all gates together."""
    settings, numbers = run.recipe().score, gate_numbers_of(run)
    assert settings is not None
    judged = sum(1 for _ in run.artifact(CURATED_EXAMPLES).records())
    kept = sum(1 for _ in run.artifact(SCORED_EXAMPLES).records())
    row: dict[str, Any] = {"examples": name, "judged": judged, "refused": 1 - kept / judged}
    for gate, found in numbers.items():
        bound = getattr(settings.gates, gate)
        if bound is not None and found:
            row[f"{gate} {bound:g}"] = sum(gates.is_refused(gate, number, bound) for number in found) / judged
    return row


def main() -> None:
    parser = report.options(__doc__)
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    parser.add_argument("--examples", type=int, default=640, help="that SmolLM2 is asked for")
    parser.add_argument("--run", type=Path, help="of SmolLM2's examples, to keep")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="worth-") as folder:
        topics = Path(folder) / "topics.txt"
        names = (options.shared / "topics.txt").read_text(encoding="utf-8").splitlines()
        topics.write_text("\n".join(random.Random(0).sample(names, TOPICS)), encoding="utf-8")
        pool = {"pool": {"num_cpus": 2}}
        writing = {"examples": options.examples, "shard_rows": 64, **pool}
        run, asked = Run(str(options.run or f"{folder}/nonsense")), recipe(topics, brainstorm=pool, synthesize=writing)
        for job in pipeline.up_to("score", asked):
            job(run, asked)
        details = [refusals("SmolLM2, unaligned", run)]
        for source, rows in people_pairs(options.shared).items():
            judge_people(judged := Run(f"{folder}/{source}"), rows)
            details.append(refusals(source, judged))
    of_people = [row for row in details if row["examples"] in PEOPLE]
    wronged = sum(row["refused"] * row["judged"] for row in of_people) / sum(row["judged"] for row in of_people)
    details.append({"examples": "people's", "judged": sum(row["judged"] for row in of_people), "refused": wronged})
    met = details[0]["refused"] >= 0.9 and wronged <= 0.05
    goal = f">= 0.9 of SmolLM2's, <= 0.05 of people's (here {wronged:.3f})"
    unit = "refused of the unaligned model's examples"
    report.emit(report.Result("worth", details[0]["refused"], goal, unit, met, details), options.json)


if __name__ == "__main__":
    main()
