"""Measure what shared beginnings of prompts bring: the same queries asked with vLLM's prefix cache and without it.

    python -m benchmarks.documents_prefix --corpus ../shared/data/cisi

The recipe `documents` as it ships: every engine is asked about the same passages, each round by engines of their own.
"""

import asyncio
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.documents_queries import spread_rows, write_queries
from speed_ray import recipes
from speed_ray.engines.vllm import Vllm
from speed_ray.evaluation import datasets
from speed_ray.recipes.engine_settings import VllmEngine
from speed_ray.records import PassageRow
from speed_ray.stages.synthesize import Synthesize
from speed_ray.storage.planned_rows import PlannedRow


async def ask(corpus: Path, rows: Sequence[PlannedRow[PassageRow]], shares: bool) -> dict[str, Any]:
    """Write one query about each row with a new engine -> tokens/s of prompts and replies together, and the rest."""
    overrides = [f"corpus.source={corpus}", f"generator.engine_kwargs.enable_prefix_caching={str(shares).lower()}"]
    stage = Synthesize(recipes.load_recipe("documents", overrides))
    assert isinstance(stage.engine, VllmEngine)
    engine = Vllm(stage.engine)
    await engine.start()
    written, said = await write_queries(engine, stage, rows)
    await engine.close()
    accepted = sum(bool(one.query) for one in written) / len(written)
    return {"tokens/s": said["prompts/s"] * said["prompt tokens"], **said, "accepted": accepted}


def main() -> None:
    parser = report.options(__doc__)
    parser.add_argument("--corpus", type=Path, default=Path("../shared/data/cisi"))
    parser.add_argument("--documents", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    rows = list(spread_rows(datasets.read_beir(options.corpus).documents, options.documents))
    details, ratios = [], []
    for number in range(options.rounds):
        speeds = {}
        for name, shares in (("without", False), ("with", True)):
            report.say(f"documents_prefix: round {number + 1}, {name}")
            line = {"prefix cache": name, "round": number + 1, **asyncio.run(ask(options.corpus, rows, shares))}
            details.append(line)
            speeds[name] = line["tokens/s"]
        ratios.append(speeds["with"] / speeds["without"])
    report.emit_against("> 1", "documents_prefix", statistics.median(ratios), "tokens/s, with / without the prefix "
                        "cache", details, options.json)  # fmt: skip


if __name__ == "__main__":
    main()
