"""CPU seconds of commands that read or foretell and ask nobody: what a user waits for who only wants to look.

    python -m benchmarks.startup

Each command is run several times, in turn with the others and with a bare start of Python that imports typer alone,
so that a busy machine slows all of them. `times a bare start` compares between machines, seconds do not.
"""

import os
import subprocess
import sys
import tempfile
from statistics import median

from benchmarks import report
from speed_ray import recipes
from speed_ray.planning.guessing_engine import free_engine
from speed_ray.planning.rehearsal import answer_here
from speed_ray.planning.token_counter import counter_of
from speed_ray.stages.brainstorm import Brainstorm
from speed_ray.stages.select_tasks import select_tasks
from speed_ray.stages.topics import collect_topics, topics_of
from speed_ray.storage.run import Run

GOAL = 0.5  # CPU seconds
BARE = "python -c 'import typer'"
# All of it by scripts: no model is looked for.
SCRIPTED = ("generator={engine: scripted}", "synthesize.generator=base", "synthesize.revise=false", "embedder=null")


def write_run(uri: str) -> None:
    """Make a run that has its tasks."""
    run, recipe = Run(uri), recipes.load_recipe("miniature", SCRIPTED)
    run.freeze(recipe)
    collect_topics(run, topics_of(recipe))
    stage = Brainstorm(recipe)
    engine = free_engine(stage.engine, counter_of(stage.engine, stage.role))
    answer_here(run, stage, stage.plan(run), engine, None)
    select_tasks(run, recipe)


def cpu_seconds(program: list[str]) -> float:
    """Run a program to its end; return the seconds that it kept a core busy, in user mode and in the kernel."""
    before = os.times()
    subprocess.run(program, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return (after.children_user + after.children_system) - (before.children_user + before.children_system)


def main() -> None:
    parser = report.options(__doc__)
    parser.add_argument("--times", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="startup-") as folder:
        write_run(f"{folder}/run")
        command = [sys.executable, "-m", "speed_ray"]
        sets = [f"--set={override}" for override in SCRIPTED]
        programs = {
            BARE: [sys.executable, "-c", "import typer"],
            "speed-ray --help": [*command, "--help"],
            "speed-ray status RUN": [*command, "status", f"{folder}/run"],
            "speed-ray plan": [*command, "plan", "--recipe", "miniature", *sets],
        }
        seconds: dict[str, list[float]] = {name: [] for name in programs}
        for _ in range(options.times):
            for name, program in programs.items():
                seconds[name].append(cpu_seconds(program))
    bare = median(seconds[BARE])
    details = [
        {"command": name, "CPU s, median": median(each), "least": min(each), "times a bare start": median(each) / bare}
        for name, each in seconds.items()
    ]
    worst = max(median(each) for name, each in seconds.items() if name != BARE)
    report.emit_against(f"<= {GOAL}", "startup", worst, "CPU s of the slowest command", details, options.json)


if __name__ == "__main__":
    main()
