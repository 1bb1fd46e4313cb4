"""What alignment brought in the miniature world, where the truth is known.

    python -m speed_ray.miniature.compare runs/demo

One line for each model that wrote examples in a run: how many, and how true they are (truth.py), with the standard
error of the mean; then examples before and after their revision.
"""

import json
import statistics
import sys
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from speed_ray import kinds
from speed_ray.errors import UserError
from speed_ray.miniature import truth
from speed_ray.records import Row
from speed_ray.storage.run import CANDIDATES, DRAFTS, EXAMPLES, REVISED_EXAMPLES, REVISIONS, Run

SHOWN = 3
WRITERS = {  # artifact: who wrote it, and with which part of the recipe
    DRAFTS: ("teacher", "draft"),
    CANDIDATES: ("junior", "propose"),
    REVISIONS: ("junior, revised by the teacher", "critique"),
    EXAMPLES: ("{generator}", "synthesize"),
    REVISED_EXAMPLES: ("{generator}, revised by the revisor", "revise"),
}


def score(record: Row) -> float:
    """The truth of one example, from 0 to 1."""
    return truth.truth_score(record["kind"], record["topic"], record["query"], record["positive"], record["negatives"])


def scores(run: Run, artifact: str) -> list[float]:
    """The truth of all that a model wrote in an artifact."""
    return [score(example) for record in records(run, artifact) for example in _examples(record)]


def records(run: Run, artifact: str) -> Iterator[Row]:
    """All published records of an artifact, in order; none before it is published."""
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


def table(run: Run) -> Table:
    """One row for each artifact that holds examples."""
    recipe = run.recipe()
    shown = Table("written by", "temperature", "examples", "truth of 1", "± error", title="Truth by model")
    for artifact, (writer, stage) in WRITERS.items():
        found = scores(run, artifact)
        if len(found) > 1:
            error = statistics.stdev(found) / len(found) ** 0.5
            temperature = getattr(recipe, stage).sampling.temperature
            name = writer.format(generator=recipe.synthesize.generator)
            row = (name, f"{temperature:g}", f"{len(found):,}", f"{statistics.mean(found):.3f}", f"{error:.3f}")
            shown.add_row(*row)
    return shown


def revisions(run: Run) -> Iterator[Text]:
    """The first revised example of some kinds, before and after, with its truth."""
    before = {record["id"]: record for record in records(run, EXAMPLES)}
    seen: set[str] = set()
    for after in records(run, REVISED_EXAMPLES):
        if after["revised"] and after["kind"] not in seen and len(seen) < SHOWN:
            seen.add(after["kind"])
            yield Text(f"\n{after['kind']} · {after['topic']}", style="bold")
            for name, record in (("before", before[after["id"]]), ("after", after)):
                texts = [record["query"], record["positive"], *record["negatives"]]
                yield Text(f"  {name} ({score(record):.2f})\n" + "\n".join(f"    {text}" for text in texts))


def main(uri: str) -> None:
    """Print both."""
    run, console = Run(uri), Console()
    if run.recipe().topics.source != "miniature://topics":
        raise UserError(f"{uri} is not about the miniature world: the truth of its examples is not known.")
    console.print(table(run))
    for text in revisions(run):
        console.print(text, soft_wrap=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except (UserError, IndexError) as error:
        sys.exit(f"usage: python -m speed_ray.miniature.compare RUN\n{error}")
