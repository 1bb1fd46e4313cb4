"""Queries a second of exact search over a corpus, and of mining from it, beside sentence-transformers' own miner.

    python -m benchmarks.documents_search --mine 16384 --full 100000

`search` is cosines alone, over 100,000 and 1,000,000 vectors; `search by words` is BM25 over texts of 60 words. `mine`
takes the same vectors of queries and passages for both: three negatives of the hundred nearest, none above 95% of the
positive's cosine, the nearest five spared. What ours does beside counts against it: ids, texts and documents are
looked up, near copies of the positive are refused, and each refusal is counted. No model runs: vectors of 384 numbers
are random, a query's near that of its passage. Peaks are of processes of their own, and hold the libraries, whose
share is a column. Theirs needs 4 bytes for each passage and each of 16,384 queries, so that more queries than `--mine`
add little to it; `--full` is for ours alone.
"""

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import dedup, process, report
from speed_ray import recipes
from speed_ray.recipes.schema import Recipe
from speed_ray.records import EXAMPLE, PASSAGE, PASSAGE_EMBEDDING, Row, content_id
from speed_ray.stages import driver_stage
from speed_ray.storage.run import EXAMPLES, PASSAGE_EMBEDDINGS, PASSAGES, Run
from speed_ray.storage.shard_plan import Plan

WIDTH, BLOCK, NOISE = 384, 8_192, 0.08
CORPUS, SEARCHED, ASKED, SIZES = 100_000, 1_024, 256, (100_000, 1_000_000)
SPEED, MEMORY = 1.0, 0.1
NEGATIVES, DEPTH, SPARED, SHARE = 3, 100, 5, 0.95


def unit(vectors: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Give vectors the length 1."""
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def blocks(rows: int, seed: int = 0) -> Iterator[np.ndarray[Any, np.dtype[np.float32]]]:
    """Make random vectors of length 1, some at a time."""
    rng = np.random.default_rng(seed)
    for begin in range(0, rows, BLOCK):
        yield unit(rng.standard_normal((min(BLOCK, rows - begin), WIDTH), np.float32))


def near(vectors: np.ndarray[Any, np.dtype[np.float32]], seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Make a query for each of some passages."""
    noise = np.random.default_rng(seed).standard_normal(vectors.shape, np.float32)
    return unit(vectors + NOISE * noise)


def grounded() -> Recipe:
    """Mine as the other does."""
    mined = {"count": NEGATIVES, "by": ["reference"], "depth": DEPTH, "skip_nearest": SPARED, "max_of_positive": SHARE}
    overrides = ["topics=null", "corpus.source=none", "mix={retrieval: 1}", "slots={}", "curate.reference=none"]
    overrides.append("synthesize={generator: base, revise: false}")
    return recipes.load_recipe("miniature", [*overrides, f"curate.mine_negatives={json.dumps(mined)}"])


def passage(number: int) -> Row:
    """A passage of a document with two of them."""
    text = f"passage {number} " + " ".join(str(number * 7 % (90 + place)) for place in range(30))
    names = {"id": content_id(str(number)), "parent_id": f"d{number // 2}", "document_id": f"d{number // 2}"}
    span = {"start": 0, "end": len(text), "tokens": 32}
    return {**names, **span, "title": "", "headings": "", "text": text, "digest": str(number), "split": "train"}


def example(number: int) -> Row:
    """A query about it."""
    about = passage(number)
    names = {"id": f"e{number}", "row_id": f"r{number}", "parent_id": about["id"], "kind": "retrieval", "topic": ""}
    texts = {"query": f"query {number}", "positive": about["text"], "negatives": [], "instruction": "", "model": "m"}
    return {**names, **texts, "language": "English"}


def write(run: Run, queries: int, passages: int) -> None:
    """Publish passages, their vectors and examples, and write the examples' vectors beside."""
    vectors = (vector.astype(np.float16) for block in blocks(passages) for vector in block)
    embedded = ({"id": content_id(str(number)), "vector": vector} for number, vector in enumerate(vectors))
    for name, rows, schema, count in (
        (PASSAGES, map(passage, range(passages)), PASSAGE, passages),
        (PASSAGE_EMBEDDINGS, embedded, PASSAGE_EMBEDDING, passages),
        (EXAMPLES, map(example, range(queries)), EXAMPLE, queries),
    ):
        results = (driver_stage.RowResult(row["id"], row, None) for row in rows)
        driver_stage.publish_rows(run.artifact(name), Plan(name, count, 4_096), schema, results)
    with (Path(run.uri) / "vectors").open("wb") as file:
        for number, block in enumerate(blocks(queries)):
            file.write(np.stack([near(block, number), block], 1).astype(np.float16).tobytes())


def search(passages: int) -> dict[str, Any]:
    """Search for some queries; this process does nothing else, so that its peak is that of searching."""
    import torch

    from speed_ray.curation.exact_search import VectorFile, VectorSearch

    with tempfile.TemporaryDirectory() as folder:
        vectors = VectorFile(Path(folder) / "vectors", WIDTH)
        for block in blocks(passages):
            vectors.append(block.astype(np.float16))
        queries, copies = next(blocks(SEARCHED, seed=1)), np.empty((0, 2), np.int64)
        assert torch.get_num_threads()
        before, started = report.peak(), clocks()
        for begin in range(0, SEARCHED, 1_024):
            asked = queries[begin : begin + 1_024]
            VectorSearch(vectors, "cpu").search(asked, np.zeros(len(asked), np.float32), copies, DEPTH)
        return said(started, before)


def said(started: tuple[float, float], before: float, **more: Any) -> dict[str, Any]:
    """Say how long it took, by the clock and by the processor, and what memory."""
    seconds, cpu = time.perf_counter() - started[0], time.process_time() - started[1]
    return {"seconds": seconds, "CPU seconds": cpu, **more, "peak RSS MB": report.peak(), "of it libraries MB": before}


def clocks() -> tuple[float, float]:
    """Return both clocks: other work on the machine slows the first alone."""
    return time.perf_counter(), time.process_time()


def words(passages: int) -> dict[str, Any]:
    """Index texts of 60 words by BM25, and search for the first ten of some; this process does nothing else."""
    from speed_ray.curation.word_search import WordSearch

    before = report.peak()
    index = WordSearch(" ".join(each) for each, _ in dedup.documents(passages))
    asked = [" ".join(each[: dedup.QUERY]) for each, _ in dedup.documents(ASKED)]
    started = clocks()
    index.search(asked, np.arange(ASKED), np.empty((0, 2), np.int64), DEPTH)
    return said(started, before)


def ours(folder: Path) -> dict[str, Any]:
    """Mine as curating does, from published artifacts to negatives."""
    import torch

    from speed_ray.curation import corpus_search
    from speed_ray.curation.corpus_negatives import CorpusMiner
    from speed_ray.curation.query_blocks import open_corpus

    assert torch.get_num_threads()
    run, settings = Run(str(folder)), grounded().curate
    vectors = np.memmap(folder / "vectors", np.float16, "r").reshape(-1, 2, WIDTH)
    before, started = report.peak(), clocks()
    searched, source = np.ones(len(vectors), bool), run.artifact(EXAMPLES)
    with tempfile.TemporaryDirectory() as name:
        corpus = open_corpus(run.artifact(PASSAGES), run.artifact(PASSAGE_EMBEDDINGS), Path(name))
        found = corpus_search.search_corpus(corpus, source, settings, searched, vectors, Path(name))
        mined = mine(CorpusMiner(corpus, found, vectors, settings), run)
    return said(started, before, negatives=mined)


def mine(miner: Any, run: Run) -> int:
    """Give all examples their negatives, a shard at a time."""
    begin = mined = 0
    source = run.artifact(EXAMPLES)
    for file in source.record_files().values():
        rows = [{**row, "split": "train"} for row in source.read(file.path).to_pylist()]
        miner.mine(rows, begin + np.arange(len(rows)))
        mined += sum(len(row["negatives"]) for row in rows)
        begin += len(rows)
    return mined


def theirs(queries: int, passages: int) -> dict[str, Any]:
    """Mine with sentence-transformers, which is given the vectors by a model that looks them up."""
    from datasets import Dataset, disable_progress_bars
    from sentence_transformers import util
    from sentence_transformers.util import mine_hard_negatives

    disable_progress_bars()

    class LookUp:
        device = "cpu"
        similarity, similarity_pairwise = staticmethod(util.dot_score), staticmethod(util.pairwise_dot_score)

        def encode_document(self, texts: list[str], **_: Any) -> Any:
            return np.concatenate(list(blocks(passages)))

        def encode_query(self, texts: list[str], **_: Any) -> Any:
            return np.concatenate([near(block, number) for number, block in enumerate(blocks(queries))])

    texts = [passage(number)["text"] for number in range(passages)]
    pairs = Dataset.from_dict({"query": [f"query {number}" for number in range(queries)], "positive": texts[:queries]})
    rules = {"range_min": SPARED, "range_max": DEPTH, "relative_margin": 1 - SHARE, "num_negatives": NEGATIVES}
    before, started = report.peak(), clocks()
    found = mine_hard_negatives(
        pairs,
        LookUp(),
        corpus=texts,
        output_format="n-tuple",
        verbose=False,
        **rules,  # type: ignore[arg-type]
    )
    return said(started, before, negatives=NEGATIVES * len(found))


def measured(what: str, contender: str, queries: int, passages: int, *arguments: str) -> dict[str, Any]:
    """One line of the table, from a process of its own."""
    report.say(f"documents_search: {what}, {contender}, {queries:,} x {passages:,}")
    found = json.loads(process.module("benchmarks.documents_search", *arguments).splitlines()[-1])
    row = {"what": what, "contender": contender, "queries": queries, "passages": passages}
    return {**row, "queries/s": queries / found.pop("seconds"), **found}


def mined(queries: int) -> dict[str, Any]:
    """Ours, over the corpus."""
    with tempfile.TemporaryDirectory(prefix="documents-search-") as folder:
        write(Run(folder), queries, CORPUS)
        return measured("mine", "speed_ray", queries, CORPUS, "--part", "ours", folder)


def main() -> None:
    parser = report.options(__doc__)
    parser.add_argument("--mine", type=int, default=16_384, help="queries that both mine for")
    parser.add_argument("--full", type=int, help="queries that ours mines for besides")
    parser.add_argument("--part", nargs="+", help="measure one thing in this process, and say how it went")
    options = parser.parse_args()
    if options.part:
        part, *given = options.part
        parts = {"search": search, "words": words, "theirs": theirs}
        print(json.dumps(ours(Path(given[0])) if part == "ours" else parts[part](*map(int, given))))
        return
    details = [measured("search", "speed_ray", SEARCHED, size, "--part", "search", str(size)) for size in SIZES]
    details.append(measured("search by words", "speed_ray", ASKED, CORPUS, "--part", "words", str(CORPUS)))
    sizes = options.mine, CORPUS
    mine = mined(options.mine)
    rival = measured("mine", "sentence-transformers", *sizes, "--part", "theirs", *map(str, sizes))
    details += [mine, rival, *([mined(options.full)] if options.full else [])]
    speed = mine["queries/s"] / rival["queries/s"]
    share = (
        max(row["peak RSS MB"] for row in details if (row["what"], row["contender"]) == ("mine", "speed_ray"))
        / rival["peak RSS MB"]
    )
    details.append({"what": "ours / theirs", "queries/s": speed, "peak RSS MB": share})
    met = speed >= SPEED and share <= MEMORY
    goal = f">= {SPEED}, at <= {MEMORY} of the peak memory"
    result = report.Result("documents_search", speed, goal, "queries/s mined, ours / theirs", met, details)
    report.emit(result, options.json)


if __name__ == "__main__":
    sys.exit(main())
