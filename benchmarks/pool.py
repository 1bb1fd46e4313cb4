"""Output tokens a second of `synthesize` against raw AsyncLLM and ray.data.llm: same tiny model, prompts and schema.

    python -m benchmarks.pool --rows 690

Each contender is a process of its own, one after the other, round by round, all on one thread of the model. The clock
of the stage runs from its first shard's start to its last commit, that of AsyncLLM from the first request to the last
reply, that of ray.data.llm from the model's first step to its last; engines loaded before. AsyncLLM has our executor,
ray.data.llm the one that it comes with and, once more, ours.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import process, report
from speed_ray.storage.run import EXAMPLES

IN_FLIGHT = 64
ENGINE = (
    f"{{engine: vllm, model: 'miniature://base', max_concurrency: {IN_FLIGHT}, "
    "engine_kwargs: {max_model_len: 1024, dtype: float32, enforce_eager: true}}"
)


def overrides(rows: int) -> list[str]:
    """One run: the scripted teacher's tasks, the tiny model's examples, one try a row so that the work is the same."""
    return [
        f"generator={ENGINE}",
        f"synthesize.examples={rows}",
        "synthesize.shard_rows=46",
        "synthesize.max_retries=0",
    ]


def stage(run: Path, rows: int) -> dict[str, Any]:
    """Ours, as a user runs it."""
    process.job("brainstorm", run, overrides(rows))
    usage = process.job("synthesize", run, overrides(rows))
    commits = process.commits(run, EXAMPLES)
    seconds = max(c.finished for c in commits) - min(c.started for c in commits)
    tokens = sum(c.counts.output_tokens for c in commits)
    return {"contender": "speed_ray", "tokens/s": tokens / seconds, "tokens": tokens, "wall s": usage.seconds}


def rival(name: str, run: Path, rows: int, *executor: str) -> dict[str, Any]:
    """Raw AsyncLLM or ray.data.llm on the prompts of the same plan, in a process of its own."""
    said = process.module(f"benchmarks.rival_{name}", str(run), json.dumps(overrides(rows)), *executor)
    answer: dict[str, Any] = json.loads(said.splitlines()[-1])
    return answer


def main() -> None:
    parser = report.options(__doc__)
    parser.add_argument("--rows", type=int, default=690)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    details = []
    with tempfile.TemporaryDirectory(prefix="pool-") as folder:
        for turn in range(options.rounds):
            report.say(f"pool: round {turn + 1} of {options.rounds}")
            run = Path(folder) / f"run-{turn}"
            details.append(stage(run, options.rows))
            details.append(rival("asyncllm", run, options.rows))
            details.append(rival("ray_data_llm", run, options.rows))
            details.append(rival("ray_data_llm", run, options.rows, "ours"))
    speed = [row["tokens/s"] for row in details]
    against = [_median(a / b for a, b in zip(speed[::4], speed[n::4], strict=True)) for n in (1, 2, 3)]
    against_raw, against_ray, against_ray_with_ours = against
    details.append({"contender": "speed_ray / ray.data.llm", "tokens/s": against_ray})
    details.append({"contender": "speed_ray / ray.data.llm, our executor", "tokens/s": against_ray_with_ours})
    report.emit(
        report.Result(
            "pool",
            against_raw,
            ">= 0.95, and faster than ray.data.llm",
            "output tokens/s, ours / raw AsyncLLM",
            against_raw >= 0.95 and against_ray > 1,
            details,
        ),
        options.json,
    )


def _median(values: Any) -> float:
    ordered = sorted(values)
    return float(ordered[len(ordered) // 2])


if __name__ == "__main__":
    main()
