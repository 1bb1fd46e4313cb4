"""Compare the writers of a miniature run: how true their examples are, and what an embedder learns from them.

    python jobs/compare_writers.py runs/demo

First the mean truth of each model's examples, which the miniature world can tell, and examples before and after their
revision. Then, beside the finished run, two more are made of parts of it: one whose examples the junior writes, and
one whose examples are the senior's before their revision. Each is curated to as many examples, trains an embedder and
is scored on questions that are held out (miniature/retrieval_set.py), beside the untrained base and BM25.
"""

import json
import shutil
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from speed_ray import kinds, pipeline
from speed_ray.errors import Interrupted, UserError
from speed_ray.evaluation import results
from speed_ray.miniature import truth
from speed_ray.recipes.schema import Recipe
from speed_ray.records import Row
from speed_ray.storage.run import (
    CANDIDATES,
    DRAFTS,
    EXAMPLES,
    PROPOSED_TASKS,
    REVISED_EXAMPLES,
    REVISIONS,
    TASKS,
    TOPICS,
    Run,
)
from speed_ray.storage.trained_models import Model

SENTENCE = "How do I knead the dough?"
REVISIONS_SHOWN = 3
SHOWN = {"ndcg_at_10": "nDCG@10", "recall_at_100": "Recall@100", "mrr_at_10": "MRR@10"}

WRITERS = {  # artifact: who wrote it, and which stage of the recipe sampled it
    DRAFTS: ("teacher", "draft"),
    CANDIDATES: ("junior", "propose"),
    REVISIONS: ("junior, revised by the teacher", "critique"),
    EXAMPLES: ("{generator}", "synthesize"),
    REVISED_EXAMPLES: ("{generator}, revised by the revisor", "revise"),
}


def truth_of(record: Row) -> float:
    """Score the truth of one example, from 0 to 1 (miniature/truth.py)."""
    return truth.truth_score(record["kind"], record["topic"], record["query"], record["positive"], record["negatives"])


def truth_scores(run: Run, artifact: str) -> list[float]:
    """Score the truth of every example in an artifact."""
    return [truth_of(example) for record in records(run, artifact) for example in _examples(record)]


def records(run: Run, artifact: str) -> Iterator[Row]:
    """Yield the published records of an artifact, in order; none before it is published."""
    opened = run.artifact(artifact)
    if opened.manifest() is not None:
        yield from opened.records()


def _examples(record: Row) -> Iterator[Row]:
    if "query" in record:
        yield record
        return
    kind = kinds.load_kind(record["kind"])
    for reply in record["candidates"] if "candidates" in record else [record["reply"]]:
        fields = json.loads(reply)
        negatives = [fields[kind.negative]] if kind.negative else []
        yield {**record, "query": fields[kind.query], "positive": fields[kind.positive], "negatives": negatives}


def truth_table(run: Run) -> Table:
    """Tabulate the mean truth of each artifact that holds examples, with the standard error of the mean."""
    recipe = run.recipe()
    shown = Table("written by", "temperature", "examples", "truth of 1", "± error", title="Truth by model")
    for artifact, (writer, stage) in WRITERS.items():
        found = truth_scores(run, artifact)
        if len(found) > 1:
            error = statistics.stdev(found) / len(found) ** 0.5
            temperature = getattr(recipe, stage).sampling.temperature
            name = writer.format(generator=recipe.synthesize.generator)
            row = (name, f"{temperature:g}", f"{len(found):,}", f"{statistics.mean(found):.3f}", f"{error:.3f}")
            shown.add_row(*row)
    return shown


def revision_texts(run: Run) -> Iterator[Text]:
    """Yield the first revised example of some kinds, before and after its revision, with its truth."""
    before = {record["id"]: record for record in records(run, EXAMPLES)}
    seen: set[str] = set()
    for after in records(run, REVISED_EXAMPLES):
        if after["revised"] and after["kind"] not in seen and len(seen) < REVISIONS_SHOWN:
            seen.add(after["kind"])
            yield Text(f"\n{after['kind']} · {after['topic']}", style="bold")
            for name, record in (("before", before[after["id"]]), ("after", after)):
                texts = [record["query"], record["positive"], *record["negatives"]]
                yield Text(f"  {name} ({truth_of(record):.2f})\n" + "\n".join(f"    {text}" for text in texts))


def compare(uri: str) -> Table:
    """Finish the two other runs; tabulate the retrieval scores of each embedder."""
    run = Run(uri)
    recipe = run.recipe()
    examples = recipe.curate.examples
    runs = {
        "junior": _sibling(run, recipe, "junior", ("models/junior",)),
        "senior": _sibling(run, recipe, "senior", (EXAMPLES,)),
        "senior, revised": run,
    }
    shown = Table("embedder", *SHOWN.values(), title=f"Embedders, each trained on {examples} examples of one writer")
    for model, name in (("base", "untrained base"), ("bm25", "BM25")):
        shown.add_row(name, *_scores(run, model))
    for name, each in runs.items():
        shown.add_row(name, *_scores(each, "embedder"))
    return shown


def _sibling(run: Run, recipe: Recipe, writer: str, parts: tuple[str, ...]) -> Run:
    """Finish the run beside this one whose examples are a writer's own, begun with some parts of this one."""
    sibling = Run(f"{run.uri.rstrip('/')}-{writer}")
    for part in (TOPICS, PROPOSED_TASKS, TASKS, *parts):
        there = Path(sibling.store.uri, part)
        if not there.is_dir():
            shutil.copytree(Path(run.store.uri, part), there.with_name(f"{there.name}.unfinished"), dirs_exist_ok=True)
            there.with_name(f"{there.name}.unfinished").rename(there)
    synthesize = recipe.synthesize.model_copy(update={"generator": writer, "revise": False})
    changed = recipe.model_copy(update={"synthesize": synthesize})
    for job in (pipeline.synthesize, pipeline.curate, pipeline.train_embedder, pipeline.evaluate):
        if job is pipeline.synthesize and sibling.artifact(EXAMPLES).manifest() is not None:
            sibling.freeze(changed)  # its writer is a model of the other run
        else:
            job(sibling, changed)
    return sibling


def _scores(run: Run, model: str) -> list[str]:
    scores = next(result["scores"] for result in results.published_scores(run, model) if result["kind"] == "retrieval")
    return [f"{scores[name]:.3f}" for name in SHOWN]


def _encoded(run: Run) -> str:
    """Load the embedder as any user would, and say what a sentence becomes."""
    from sentence_transformers import SentenceTransformer

    folder = Model(run, "embedder").fetch()
    vector = SentenceTransformer(str(folder), device="cpu").encode(SENTENCE, prompt_name="query")
    first = ", ".join(f"{number:.3f}" for number in vector[:4])
    return f"SentenceTransformer({str(folder)!r}).encode({SENTENCE!r}): {len(vector)} numbers, [{first}, ...]"


def main(uri: str) -> None:
    """Print both tables, some revisions, and a sentence's vector."""
    run, console = Run(uri), Console()
    topics = run.recipe().topics
    if topics is None or topics.source != "miniature://topics":
        raise UserError(f"{uri} is not about the miniature world, where alone the truth of an example is known.")
    console.print(truth_table(run))
    for text in revision_texts(run):
        console.print(text, soft_wrap=True)
    console.print(compare(uri))
    console.print(_encoded(run), markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except (UserError, Interrupted, IndexError) as error:
        sys.exit(f"usage: python jobs/compare_writers.py RUN\n{error}")
