"""What training the real MiniLM on a real corpus brings on that corpus, and what it costs elsewhere.

    python -m benchmarks.real_corpus --sts ../shared/data/stsb-en-dev.csv

The corpus is the docstrings of numpy, pandas, scipy and scikit-learn: a first line finds the description below it.
Whole modules are held out. Curating, negatives from the set itself, training and scoring are the jobs that users run.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import embedding, report
from jobs.write_docstrings import Section, sections
from speed_ray import pipeline, recipes
from speed_ray.evaluation import results
from speed_ray.recipes.schema import Recipe
from speed_ray.storage.run import CURATED_EXAMPLES, Run

HELD_OUT = 0.2  # of the modules
LEAST_STS = -0.01  # what STS-B may lose


def recipe(beir: Path, sts: Path | None, epochs: float) -> Recipe:
    """Curate, train and score as `speed-ray` does, without an instruction before queries."""
    base = embedding.recipe(num_train_epochs=epochs, workers={"num_workers": 2}, micro_batch_size=32, warmup_ratio=0.1)
    tree = base.model_dump(mode="json", include={"seed", "topics", "teacher", "generator", "embedder"})
    curate = {"held_out": HELD_OUT, "reference": str(embedding.MINILM), "mine_negatives": 1}
    sets = {"retrieval": [{"path": str(beir), "instruction": ""}]}
    if sts:
        sets["sts"] = [{"path": str(sts), "instruction": ""}]
    return recipes.validate({**tree, "curate": curate, "evaluate": sets}, "the benchmark")


def write_beir(folder: Path, found: list[Section], asked: set[str]) -> None:
    """Write all descriptions as documents and the first lines that are held out as queries."""
    (folder / "qrels").mkdir(parents=True)
    rows = [(embedding.example(section)["id"], section) for section in found]
    corpus = [json.dumps({"_id": name, "title": "", "text": section.body}) for name, section in rows]
    queries = [json.dumps({"_id": f"q{name}", "text": section.title}) for name, section in rows if name in asked]
    (folder / "corpus.jsonl").write_text("\n".join(corpus))
    (folder / "queries.jsonl").write_text("\n".join(queries))
    relevant = [f"q{name}\t{name}\t1" for name, _ in rows if name in asked]
    (folder / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *relevant]))


def scores(run: Run) -> list[dict[str, Any]]:
    """One row a model and set, from what the job stored."""
    found = []
    for model in ("base", "embedder", "bm25"):
        for result in results.published_scores(run, model):
            found.append({"model": model, "set": result["kind"], **result["scores"]})
    return found


def main() -> None:
    parser = report.options(__doc__)
    parser.add_argument("--sts", type=Path, default=Path("../shared/data/stsb-en-dev.csv"))
    parser.add_argument("--epochs", type=float, default=1.0)
    options = parser.parse_args()
    found = sections()
    with tempfile.TemporaryDirectory(prefix="real_corpus-") as folder:
        run, beir = Run(f"{folder}/run"), Path(folder) / "beir"
        settings = recipe(beir, options.sts if options.sts.is_file() else None, options.epochs)
        embedding.write_examples(run, [embedding.example(section) for section in found])
        pipeline.curate(run, settings)
        curated = list(run.artifact(CURATED_EXAMPLES).records())
        held_out = {row["id"] for row in curated if row["split"] == "held_out"}
        write_beir(beir, found, held_out)
        pipeline.train_embedder(run, settings)
        pipeline.evaluate(run, settings)
        details = scores(run)
    by = {(row["model"], row["set"]): row for row in details}
    gain = by["embedder", "retrieval"]["ndcg_at_10"] - by["base", "retrieval"]["ndcg_at_10"]
    lost = by["embedder", "sts"]["spearman"] - by["base", "sts"]["spearman"] if ("base", "sts") in by else float("nan")
    details.append({"model": "rows", "set": f"{len(curated) - len(held_out)} trained, {len(held_out)} held out"})
    goal = f"> 0, and STS-B at most 0.01 worse (here {lost:+.4f})"
    report.emit(
        report.Result("real_corpus", gain, goal, "nDCG@10, trained - base", gain > 0 and lost >= LEAST_STS, details),
        options.json,
    )


if __name__ == "__main__":
    main()
