"""Measure the queries that a model writes about documents, by prompt, temperature and form.

    python -m benchmarks.documents_queries --corpus ../shared/data/cisi --model package://smollm2

Each arm asks twice about the same documents of a BEIR folder, once each time. A query is found at k when its own
document is among the first k of the whole corpus by MiniLM. `shared` is the share of the prompts' tokens that vLLM had
in its prefix cache.
"""

import asyncio
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import report
from benchmarks.embedding import MINILM
from speed_ray import recipes
from speed_ray.engines.vllm import Vllm
from speed_ray.evaluation import datasets
from speed_ray.kinds import retrieval
from speed_ray.prompts import render
from speed_ray.recipes.engine_settings import VllmEngine
from speed_ray.records import PassageRow, Rejected, content_id, seed_of
from speed_ray.stages.synthesize import Synthesize
from speed_ray.storage.planned_rows import PlannedRow
from speed_ray.text.words import split_words

PER_PASSAGE = 2
MAX_WORDS = 180  # of a document, as much as a passage of 200 tokens or so
MAX_TOKENS = 64
WINDOW = 4_096


class Arm(NamedTuple):
    """Say how the model is asked."""

    completion: bool
    temperature: float
    examples: bool = True  # whether ours are shown
    contrast: bool = False  # whether the document's nearest neighbour is shown


BEST = "continuation, T 0.3"  # as the recipe `documents` asks
ARMS = {
    "chat, T 0.7": Arm(False, 0.7, examples=False),
    "chat with examples, T 0.7": Arm(False, 0.7),
    "continuation, T 0.3": Arm(True, 0.3),
    "continuation, T 0.7": Arm(True, 0.7),
    "continuation, T 1.0": Arm(True, 1.0),
    "continuation with a neighbour, T 0.3": Arm(True, 0.3, contrast=True),
}


class Written(NamedTuple):
    """Hold what came of one prompt, in its first trial: a query, or "" and the reason."""

    document: str
    form: str
    query: str
    reason: str


@dataclass(frozen=True)
class Corpus:
    """Hold a collection's documents and real queries, with the documents' unit vectors, one a row."""

    texts: dict[str, str]
    queries: list[str]
    vectors: Any
    model: Any

    def ranks(self, written: Sequence[Written]) -> Any:
        """Return the rank of each query's own document, from 1."""
        place = {name: index for index, name in enumerate(self.texts)}
        scores = self.model.encode([one.query for one in written], normalize_embeddings=True) @ self.vectors.T
        own = np.array([row[place[one.document]] for row, one in zip(scores, written, strict=True)])
        return (scores > own[:, None]).sum(1) + 1


def read_corpus(folder: Path) -> Corpus:
    """Read a BEIR folder and embed its documents."""
    from sentence_transformers import SentenceTransformer

    read = datasets.read_beir(folder)
    texts = {name: text for name, text in read.documents.items() if text}
    model = SentenceTransformer(str(MINILM), device="cpu")
    vectors = model.encode(list(texts.values()), normalize_embeddings=True)
    return Corpus(texts, list(read.queries.values()), vectors, model)


def spread_rows(texts: dict[str, str], documents: int) -> Iterator[PlannedRow[PassageRow]]:
    """Plan the prompts about so many documents, spread evenly, the beginning of each as one passage."""
    names = list(texts)
    for name in names[:: -(-len(names) // documents)]:
        passage: PassageRow = {
            **render.A_PASSAGE,
            "id": content_id(name),
            "document_id": name,
            "title": "",
            "headings": "",
            "text": " ".join(texts[name].split()[:MAX_WORDS]),
        }
        for variant in map(str, range(PER_PASSAGE)):
            yield PlannedRow(content_id(passage["id"], variant), passage, variant)


def with_neighbour(row: PlannedRow[PassageRow], corpus: Corpus) -> PlannedRow[PassageRow]:
    """Add the beginning of the nearest other document."""
    names = list(corpus.texts)
    own = names.index(row.parent["document_id"])
    nearest = int(np.argsort(-(corpus.vectors @ corpus.vectors[own]))[1])
    neighbour = " ".join(corpus.texts[names[nearest]].split()[:MAX_WORDS])
    return replace(row, parent={**row.parent, "neighbour_id": names[nearest], "neighbour": neighbour})


def stage_of(arm: Arm, model: str, bare: Path) -> Synthesize:
    """Return the stage that writes one arm's queries."""
    engine = {"engine": "vllm", "model": model, "completion": arm.completion}
    tree = {
        "corpus": {"source": "documents"},
        "generator": {**engine, "engine_kwargs": {"max_model_len": WINDOW}},
        "synthesize": {"sampling": {"temperature": arm.temperature, "max_tokens": MAX_TOKENS}},
        "prompts": None if arm.examples else str(bare),
    }
    return Synthesize(recipes.validate(tree, "the benchmark"))


def write_bare_template(folder: Path) -> None:
    """Write our template for chat without the part that shows examples."""
    ours = (render.OURS / "ground.jinja").read_text()
    begin, end = ours.index("{% for example"), ours.index("\n{% if title %}")
    (folder / "ground.jinja").write_text(ours[:begin] + ours[end:])


async def write_queries(
    engine: Vllm, stage: Synthesize, rows: Sequence[PlannedRow[PassageRow]]
) -> tuple[list[Written], dict[str, Any]]:
    """Ask once about each row -> what came of it, and how fast."""

    async def ask(row: PlannedRow[PassageRow]) -> Written:
        request = replace(stage.request(row), seed=seed_of(0, row.row_id, "trial 0"))
        form, document = request.context["slots"]["form"], row.parent["document_id"]
        reply = await engine.generate(request)
        try:
            return Written(document, form, stage.parse(row, request, reply)[0]["query"], "")
        except Rejected as rejected:
            return Written(document, form, "", rejected.reason)

    begun, before = time.perf_counter(), engine.load()
    written = await asyncio.gather(*map(ask, rows))
    seconds, after = time.perf_counter() - begun, engine.load()
    prompts = after.prompt_tokens - before.prompt_tokens
    shared = (after.cached_tokens - before.cached_tokens) / prompts
    return written, {"prompts/s": len(rows) / seconds, "prompt tokens": prompts / len(rows), "shared": shared}


async def write_arms(
    model: str, names: Sequence[str], rows: Sequence[PlannedRow[PassageRow]], corpus: Corpus
) -> dict[str, tuple[list[Written], dict[str, Any]]]:
    """Write the queries of every arm, each by an engine of its own."""
    found = {}
    with tempfile.TemporaryDirectory(prefix="prompts-") as folder:
        write_bare_template(Path(folder))
        for name in names:
            report.say(f"documents_queries: {name}")
            stage = stage_of(ARMS[name], model, Path(folder))
            assert isinstance(stage.engine, VllmEngine)
            engine = Vllm(stage.engine)
            await engine.start()
            asked = [with_neighbour(row, corpus) for row in rows] if ARMS[name].contrast else rows
            found[name] = await write_queries(engine, stage, asked)
            await engine.close()
    return found


def describe(written: Sequence[Written], corpus: Corpus) -> dict[str, Any]:
    """Count what came of some prompts, and measure their queries."""
    fit = [one for one in written if one.query]
    reasons = Counter(one.reason for one in written if one.reason)
    ranks = corpus.ranks(fit) if fit else np.array([0])
    return {
        "prompts": len(written),
        "accepted": len(fit) / len(written),
        "copied": reasons.pop("copied", 0) / len(written),
        "other rejects": ", ".join(f"{name} {count}" for name, count in reasons.most_common(3)),
        "distinct": len({one.query for one in fit}) / max(1, len(fit)),
        "words": statistics.median(len(split_words(one.query)) for one in fit) if fit else 0,
        "found at 1": float((ranks == 1).mean()),
        "found at 20": float(((ranks > 0) & (ranks <= 20)).mean()),
    }


def table(
    found: dict[str, tuple[list[Written], dict[str, Any]]], corpus: Corpus, best: str
) -> Iterator[dict[str, Any]]:
    """Yield a line for each arm, for each form of one arm, and for the collection's own queries."""
    for name, (written, speed) in found.items():
        yield {"queries": name, **describe(written, corpus), **speed}
    for form in retrieval.FORMS:
        yield {
            "queries": f"{best}: {form}",
            **describe([one for one in found[best][0] if one.form == form], corpus),
        }
    lengths = [len(split_words(query)) for query in corpus.queries]
    yield {"queries": "the collection's own", "prompts": len(lengths), "words": statistics.median(lengths)}


def main() -> None:
    parser = report.options(__doc__)
    parser.add_argument("--corpus", type=Path, default=Path("../shared/data/cisi"))
    parser.add_argument("--model", default="package://smollm2")
    parser.add_argument("--documents", type=int, default=150)
    parser.add_argument("--arms", nargs="*", default=list(ARMS))
    parser.add_argument("--show", action="store_true", help="print some queries of each arm")
    options = parser.parse_args()
    corpus = read_corpus(options.corpus)
    rows = list(spread_rows(corpus.texts, options.documents))
    found = asyncio.run(write_arms(options.model, options.arms, rows, corpus))
    for name, (written, _) in found.items() if options.show else ():
        report.say("\n".join([name, *(f"  {one.form}: {one.query or one.reason}" for one in written[:24])]))
    best = BEST if BEST in found else options.arms[-1]
    details = list(table(found, corpus, best))
    [figure] = [line["found at 20"] for line in details if line["queries"] == best]
    report.emit_against(">= 0.5", "documents_queries", figure, "of the queries found at 20", details, options.json)


if __name__ == "__main__":
    main()
