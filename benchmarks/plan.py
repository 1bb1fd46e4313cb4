"""Compare what `speed-ray plan` foretells from 32 rows of each kind with what the runs then take.

    python -m benchmarks.plan --rows 1200

Each run is planned with `--sample`, and then driven to its end: simulations, the script, a mock endpoint that charges,
pushes back and fails, and SmolLM2 on a real vLLM, which writes about Python's documentation. Compared are the calls,
the tokens of prompts and replies, and the dollars of all stages, those of the sample among them.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.endpoint import mock
from benchmarks.process import UNALIGNED
from speed_ray.executor.usage import ARTIFACTS_OF, usage_by_artifact
from speed_ray.recipes.engine_settings import Price
from speed_ray.storage.run import Run
from speed_ray.storage.spending import Usage

SAMPLE = 32
PRICE = Price(input=5.0, output=15.0)
GOAL, NEVER = 0.10, 0.25  # in 9 of 10, and in the others
SIMULATED = "{engine: simulated, prefill: 1.0e+12, decode: 1.0e+12, max_tokens_per_stream: 1.0e+12, %s}"
ENDPOINT = "{engine: openai, model: mock, base_url: '%s', price: {input: 5.0, output: 15.0}}"


@dataclass(frozen=True)
class Planned:
    """Names one run: its recipe's overrides, and the mock endpoint that it asks, if any."""

    name: str
    overrides: Sequence[str]
    endpoint: Sequence[str] | None = None
    recipe: str = "miniature"


def runs(rows: int, documents: Path | None) -> list[Planned]:
    """List the runs."""
    topics = [*UNALIGNED, f"synthesize.examples={rows}", "embedder=null"]

    def both(engine: str) -> list[str]:
        return [*topics, f"teacher={engine}", f"generator={engine}"]

    found = [
        Planned("simulated", both(SIMULATED % "output_tokens: 350")),
        Planned("simulated, long and short", both(SIMULATED % "output_tokens: 350, spread: 0.9")),
        Planned("simulated, a tenth malformed", both(SIMULATED % "spread: 0.5, faults: {malformed: 0.1}")),
        Planned("simulated, a third malformed", both(SIMULATED % "spread: 0.5, faults: {malformed: 0.33}")),
        Planned("scripted", both("{engine: scripted}")),
        Planned("endpoint", topics, ["--tokens", "180", "--spread", "0.8"]),
        Planned(
            "endpoint, 10% 429 and 2% 500", topics, ["--spread", "0.8", "--share-429", "0.1", "--share-500", "0.02"]
        ),
        Planned("endpoint, a tenth malformed", topics, ["--spread", "0.8", "--share-malformed", "0.1"]),
    ]
    if documents:
        corpus = [f"corpus.source={documents}", "embedder=null", "synthesize.shard_rows=64"]
        for name, more in (("vLLM", []), ("vLLM, at temperature 1", ["synthesize.sampling.temperature=1.0"])):
            found.append(Planned(name, [*corpus, f"synthesize.examples={rows // 6}", *more], recipe="documents"))
    return found


def compare(planned: Planned, run: Path) -> dict[str, Any]:
    """Plan a run, drive it, and return by how much each figure was off."""
    with ExitStack() as stack:
        overrides = list(planned.overrides)
        if planned.endpoint is not None:
            engine = ENDPOINT % stack.enter_context(mock(*planned.endpoint))
            overrides += [f"teacher={engine}", f"generator={engine}"]
        options = ["--recipe", planned.recipe, "--run", str(run), *(each for o in overrides for each in ("--set", o))]
        foretold = json.loads(speed_ray("plan", *options, "--sample", str(SAMPLE), "--json").splitlines()[-1])
        speed_ray("run", *options, "--until", "synthesize")
    stages, took = foretold["stages"], spent(str(run))
    was = {
        "calls": sum(stage["calls"] for stage in stages),
        "prompt tokens": sum(stage["prompt_tokens"] for stage in stages),
        "output tokens": sum(stage["output_tokens"]["expected"] for stage in stages),
        "$": foretold["dollars"]["expected"] if planned.endpoint is not None else None,
    }
    came = {
        "calls": took.calls,
        "prompt tokens": took.prompt_tokens,
        "output tokens": took.output_tokens,
        "$": took.dollars(PRICE),
    }
    off = {name: None if was[name] is None else was[name] / came[name] - 1 for name in was}
    worst = max(abs(error) for error in off.values() if error is not None)
    shown = {
        f"{name}, planned / taken": f"{was[name]:,.2f} / {came[name]:,.2f}" for name in was if was[name] is not None
    }
    return {"run": planned.name, **{f"{name} off": error for name, error in off.items()}, "worst": worst, **shown}


def spent(run: str) -> Usage:
    """Add up what all stages of a run took, its sample among it."""
    opened = Run(run)
    return sum((each for role in ARTIFACTS_OF for each in usage_by_artifact(opened, role).values()), Usage())


def speed_ray(*arguments: str) -> str:
    """Run `speed-ray` to its end; return what it printed."""
    command = [str(Path(sys.executable).parent / "speed-ray"), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(f"speed-ray {arguments[0]} ended with {ended.returncode}:\n{ended.stderr[-3000:]}")
    return ended.stdout


def main() -> None:
    parser = report.options(__doc__)
    parser.add_argument("--rows", type=int, default=1_200)
    parser.add_argument("--only", help="runs whose name has this in it")
    parser.add_argument("--documents", type=Path, help="a corpus for vLLM; by default docstrings are written to one")
    parser.add_argument("--without-vllm", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="plan-") as name:
        documents = None if options.without_vllm else options.documents or docstrings(Path(name) / "docs")
        chosen = [each for each in runs(options.rows, documents) if (options.only or "") in each.name]
        details = []
        for number, planned in enumerate(chosen):
            report.say(f"plan: {planned.name}")
            details.append(compare(planned, Path(name) / f"run-{number}"))
    errors = sorted(row["worst"] for row in details)
    within = sum(error <= GOAL for error in errors) / len(errors)
    met = within >= 0.9 and errors[-1] <= NEVER
    goal = f"at most {GOAL} off in 9 of 10, never above {NEVER}"
    report.emit(
        report.Result("plan", within, goal, f"of {len(errors)} runs within {GOAL}", met, details), options.json
    )


def docstrings(folder: Path) -> Path:
    """Write docstrings as documents."""
    subprocess.run([sys.executable, "jobs/write_docstrings.py", str(folder)], check=True, stdout=subprocess.DEVNULL)
    return folder


if __name__ == "__main__":
    main()
