"""Measure what a user's own documents bring: nDCG@10 of MiniLM trained on SmolLM2's queries, arm by arm.

    python -m benchmarks.documents --corpus ../shared/data/cisi --seeds 0 1 2

The recipe `documents`, on a BEIR folder with judged queries. Of each seed one run writes the queries; the arms train
on all of them, on those that were found again, and on those with negatives mined from the corpus; then with a mask of
false negatives, with the gates and scores of `score`, and with what the recipe has besides. Beside them BM25, the
base, and the two together: z-scores over the documents of a query, 1 : 0.3. `--arms` takes some of the arms.
"""

import shutil
import statistics
import tempfile
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from speed_ray import pipeline
from speed_ray.evaluation import datasets, eval_models, metrics, results
from speed_ray.evaluation.intervals import paired_gain
from speed_ray.recipes import load_recipe
from speed_ray.storage.run import CURATED_EXAMPLES, DOCUMENTS, EXAMPLES, PASSAGES, SCORED_EXAMPLES, Run
from speed_ray.text import bm25

SHARE_OF_BM25 = 0.3
WRITTEN = (DOCUMENTS, PASSAGES, EXAMPLES)  # what the arms of a seed share
LAST = ("embedder.load_best_model_at_end=false", "embedder.merge=null")  # the trained weights as they are at the end
KL = ("embedder.loss=kl", "embedder.judge=mixture")
EIGHT = ("curate.mine_negatives.count=4",)  # by each of two miners
UNSCORED = ("score=null", *LAST)
ARMS = {
    "InfoNCE on all queries": (*UNSCORED, "curate.found_again=null", "curate.mine_negatives=0"),
    "+ found again": (*UNSCORED, "curate.mine_negatives=0"),
    "+ mined": UNSCORED,
    "+ guided mask": (*UNSCORED, "embedder.guide={}"),
    "mined and gated": LAST,
    "mined and gated, KL from the mixture": (*KL, *LAST),
    "8 mined and gated": (*EIGHT, *LAST),
    "8 mined and gated, KL from the mixture": (*EIGHT, *KL, *LAST),
    "mined and gated, best and merged": (),  # the recipe as it is
}
Scores = dict[str, float]  # nDCG@10 by query


def train_arms(
    arms: list[str], folder: Path, corpus: Path, seed: int, extra: list[str], first: Run | None
) -> tuple[dict[str, Scores], dict[str, Any]]:
    """Run every arm of one seed -> scores by arm, of the base and BM25 too, and what the arms were trained on.

    Where there is a run already that wrote the queries of this seed, they are taken from it.
    """
    scores: dict[str, Scores] = {}
    facts: dict[str, Any] = {}
    for number, arm in enumerate(arms):
        run = Run(str(folder / f"{seed}-{number}"))
        report.say(f"documents: seed {seed}, {arm}")
        recipe = load_recipe("documents", [f"corpus.source={corpus}", f"seed={seed}", *ARMS[arm], *extra])
        for part in WRITTEN if first else ():
            shutil.copytree(Path(first.store.uri, part), Path(run.store.uri, part))
        for job in pipeline.up_to("evaluate", recipe):
            job(run, recipe)
        first = first or run
        scores[arm] = _by_query(run, "embedder")
        scores |= {name: _by_query(run, name) for name in ("base", "bm25")}
        facts[arm] = {"trained on": _trained_on(run), "STS-B": _sts(run)}
    scores["base + BM25"] = mixed_scores(run, corpus)
    return scores, facts


def mixed_scores(run: Run, corpus: Path) -> Scores:
    """Score the base and BM25 together: their z-scores over all documents of a query, 1 : 0.3."""
    retrieval = datasets.read_beir(corpus)
    base = next(model for model in eval_models.models_of(run, run.recipe()) if model.name == eval_models.BASE)
    embed = eval_models.embed_with(eval_models.load_model(base, "cpu"), base.instructed, "")
    names, texts = list(retrieval.documents), list(retrieval.documents.values())
    keys, asked = (
        metrics.unit(embed(each, side))
        for each, side in ((texts, "document"), (list(retrieval.queries.values()), "query"))
    )
    words, ranking = bm25.WordScorer(texts), {}
    for vector, (query, text) in zip(asked, retrieval.queries.items(), strict=True):
        mixed = z_scores(keys @ vector) + SHARE_OF_BM25 * z_scores(words.of_indexed(text))
        ranking[query] = {names[place]: float(mixed[place]) for place in metrics.top_k(mixed, metrics.MAX_RANKED)}
    return metrics.score_queries(ranking, retrieval)


def z_scores(scores: Any) -> Any:
    """Centre scores on 0 with a standard deviation of 1."""
    return (scores - scores.mean()) / (scores.std() or 1.0)


def _by_query(run: Run, model: str) -> Scores:
    [found] = [each["by_query"] for each in results.published_scores(run, model) if each["name"] != "held-out queries"
               and each["kind"] == "retrieval"]  # fmt: skip
    return found


def _sts(run: Run) -> float | None:
    return next((each["scores"]["spearman"] for each in results.published_scores(run, "embedder")
                 if each["kind"] == "sts"), None)  # fmt: skip


def _trained_on(run: Run) -> int:
    rows = run.artifact(CURATED_EXAMPLES if run.recipe().score is None else SCORED_EXAMPLES).records()
    return sum(row["split"] == "train" for row in rows)


def mean_scores(of_seeds: list[Scores]) -> Scores:
    """Average each query's score over the seeds."""
    return {query: statistics.mean(scores[query] for scores in of_seeds) for query in of_seeds[0]}


def main() -> None:
    parser = report.options(__doc__)
    parser.add_argument("--corpus", type=Path, default=Path("../shared/data/cisi"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--written", type=Path, nargs="*", default=[], help="runs that wrote the queries of the seeds")
    parser.add_argument("--set", action="append", default=[], dest="extra", help="of the recipe")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="documents-") as folder:
        done = [
            train_arms(options.arms, Path(folder), options.corpus, seed, options.extra, written and Run(str(written)))
            for seed, written in zip_longest(options.seeds, options.written)
        ]
    arms = {
        arm: mean_scores([scores[arm] for scores, _ in done]) for arm in ("bm25", "base", "base + BM25", *options.arms)
    }
    details = []
    for arm, scores in arms.items():
        row = {"arm": arm, "nDCG@10": float(np.mean(list(scores.values()))),
               "over base, 95%": "" if arm == "base" else str(paired_gain(arms["base"], scores))}  # fmt: skip
        row |= {key: [facts[arm][key] for _, facts in done] for key in ("trained on", "STS-B") if arm in ARMS}
        details.append(row)
    gains = [float(row["nDCG@10"]) - float(details[1]["nDCG@10"]) for row in details if row["arm"] in ARMS]
    report.emit(
        report.Result(
            "documents",
            gains[-1],
            "no arm below the base",
            f"nDCG@10, {options.arms[-1]} - base",
            min(gains) >= 0,
            details,
        ),
        options.json,
    )


if __name__ == "__main__":
    main()
