"""Define the `speed-ray` command: every job, and commands that read a run. Only a job imports Ray and torch.

What `--help` needs is imported here; a command imports what it needs in its own body, so that each starts at once.
"""

import signal

# A Ctrl-C while the modules below are imported ends the process without a traceback; main() then catches it.
signal.signal(signal.SIGINT, signal.SIG_DFL)

import contextlib
import json
import os
import shlex
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from speed_ray.console.init_recipe import init
from speed_ray.console.quality_command import quality
from speed_ray.errors import Interrupted, Stalled, UserError

app = typer.Typer(
    help="From a list of topics to training data for embedding models. A job that was stopped goes on when run again.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

RecipeName = Annotated[str, typer.Option("--recipe", help="A recipe's name (miniature, …) or a YAML file.")]
RunUri = Annotated[str, typer.Option("--run", help="The run's folder: a path, s3://…, gs://… or az://…")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="key=value over the recipe, as often as needed.")]
RunArgument = Annotated[str, typer.Argument(help="The run's folder.", metavar="RUN")]
NodeCpus = Annotated[int | None, typer.Option("--cpus", help="CPUs of this node; all, by default.")]
NodeGpus = Annotated[int | None, typer.Option("--gpus", help="GPUs of this node; all, by default.")]
NodeLabels = Annotated[str | None, typer.Option("--labels", help="key=value,… by which work can choose nodes.")]
TempDir = Annotated[str | None, typer.Option("--temp-dir", help="For sockets and logs; a short path.")]
RayOptions = Annotated[
    list[str] | None, typer.Argument(help="More options of `ray start`, after --.", metavar="RAY_OPTION")
]

JOBS = {  # the help of each function in pipeline.JOBS, which is not imported here because it imports Ray
    "read_documents": "Documents -> passages: files of any form are read, copies go, and the rest is split.",
    "brainstorm": "Topics -> tasks: a teacher lists tasks for every topic and kind, and those that differ are kept.",
    "align_junior": "Tasks -> junior: the teacher writes examples, and the base model learns from them.",
    "align_senior": "Junior -> senior: the teacher judges the junior's candidates; DPO makes it prefer the better.",
    "align_revisor": "Junior -> revisor: the teacher revises the junior's candidates; the base model learns to do so.",
    "synthesize": "Tasks -> examples: the generator writes an example for every planned prompt.",
    "curate": "Examples -> curated examples: what repeats, leaks or misleads goes, some tasks are held out.",
    "score": "Curated examples -> scored ones: judges score each pair, and gates refuse what teaches nothing.",
    "train_embedder": "Examples -> embedder: contrastive training; with embedder.stream during synthesis.",
    "evaluate": "Embedder -> scores: on every set of the recipe, beside the model before training and BM25.",
}


def main(arguments: list[str] | None = None) -> None:
    """Run one command; print an error as a message, with its exit code, and never a traceback."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        app(args=arguments)
    except (UserError, Interrupted, Stalled) as error:
        print(f"speed-ray: {error}", file=sys.stderr)
        _end(error.exit_code)


def _add_job(name: str, text: str) -> None:
    @app.command(name.replace("_", "-"), help=text)
    def job(recipe: RecipeName, run: RunUri, set_: Overrides = None) -> None:
        _run_jobs(name, recipe, run, set_)


for _name, _text in JOBS.items():
    _add_job(_name, _text)


@app.command()
def run(
    recipe: RecipeName,
    run: RunUri,
    until: Annotated[str | None, typer.Option("--until", help="The last job to do.", metavar="JOB")] = None,
    set_: Overrides = None,
) -> None:
    """Run every job that the recipe needs, in order, skipping what is finished."""
    _run_jobs(None if until is None else until.replace("-", "_"), recipe, run, set_, with_all_before=True)


@app.command("plan")
def plan_recipe(
    recipe: RecipeName,
    run: Annotated[str | None, typer.Option("--run", help="A run, begun or not: what it has counts.")] = None,
    sample: Annotated[
        int | None, typer.Option("--sample", min=1, help="Real rows of each kind to ask, kept in --run.")
    ] = None,
    most: Annotated[
        float | None, typer.Option("--most", min=0, help="Dollars: exit code 2 where it may well cost more.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    set_: Overrides = None,
) -> None:
    """Tell what a recipe takes before it is spent: calls, tokens, dollars, hours. Spends nothing without --sample."""
    from speed_ray.console.plan_report import plan_lines, plan_table
    from speed_ray.planning.kept_plan import keep_plan
    from speed_ray.planning.price_limit import check_most
    from speed_ray.planning.run_plan import plan_run
    from speed_ray.recipes import load_recipe
    from speed_ray.storage.run import Run

    if sample and run is None:
        raise UserError("--sample pays for replies, which are kept in a run: name its folder with --run.")
    opened = Run(run) if run else None
    with contextlib.redirect_stdout(sys.stderr):  # the progress of a sample
        found = plan_run(load_recipe(recipe, set_ or ()), opened, sample)
    if opened:
        keep_plan(opened, found.to_json())
    if as_json:
        print(json.dumps(found.to_json()))
    else:
        print(*plan_table(found), *plan_lines(found), sep="\n")
    if most is not None:
        check_most(found, most)


@app.command()
def status(
    run: RunArgument,
    watch: Annotated[bool, typer.Option("--watch", help="Again every 5 s, with rows a second, until Ctrl-C.")] = False,
) -> None:
    """Print a run's progress, while it runs or after a crash: read from storage alone."""
    from speed_ray.console.status import status_lines, watch_status
    from speed_ray.storage.run import Run

    if watch:
        from rich.console import Console

        with contextlib.suppress(KeyboardInterrupt):
            watch_status(Run(run), Console())
        return
    print(*status_lines(Run(run)), sep="\n")


@app.command("verify")
def verify_run(
    run: RunArgument,
    repair: Annotated[
        bool, typer.Option("--repair", help="Withdraw damaged shards; the next drive makes them anew.")
    ] = False,
) -> None:
    """Prove from storage that every planned row is there once. Exit code 1 when the proof fails."""
    from speed_ray.console.verify_report import print_proof
    from speed_ray.storage.run import Run

    if not print_proof(Run(run), repair):
        sys.exit(1)


@app.command()
def show(
    run: RunArgument,
    artifact: Annotated[str, typer.Argument(help="Such as tasks, drafts, examples, curated_examples.")],
    row: Annotated[str | None, typer.Option("--row", help="The id of one row.")] = None,
    rejects: Annotated[bool, typer.Option("--rejects", help="What was turned away: one of each reason.")] = False,
    kind: Annotated[str | None, typer.Option("--kind", help="Only this kind of example.")] = None,
) -> None:
    """Print rows with their whole lineage: topic and task, or document and passage; prompt, raw reply, model."""
    from rich.console import Console

    from speed_ray.console.show import show_rows
    from speed_ray.storage.run import Run

    show_rows(Run(run), artifact, Console(), row, rejects, kind)


@app.command()
def export(
    run: RunArgument,
    to: Annotated[str, typer.Option("--to", help="The folder to make.", metavar="FOLDER")],
    form: Annotated[
        str,
        typer.Option(
            "--as",
            help="hub, beir, sentence-transformers, flagembedding, tevatron, jsonl; the model: embedder, onnx, int8.",
            metavar="FORM",
        ),
    ],
    artifact: Annotated[
        str | None, typer.Option("--artifact", help="Which rows; the finished examples, of hub all.")
    ] = None,
    push: Annotated[
        str | None, typer.Option("--push", help="Upload it to the hub, private.", metavar="OWNER/NAME")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Let everybody see what is pushed.")] = False,
) -> None:
    """Write a run's rows, with a card, in the form that another tool reads; push them to the hub if asked."""
    from speed_ray.export.forms import MODEL_FORMS, export_run
    from speed_ray.export.push import check_push, push_folder
    from speed_ray.storage.run import Run

    if public and push is None:
        raise UserError("--public says who sees what is pushed: name where to with --push owner/name.")
    if "://" in to:
        raise UserError(f"--to {to}: an export is a folder on this machine; copy it to a bucket from there.")
    if push is not None:
        check_push(push)
    folder = Path(to).expanduser()
    said = export_run(Run(run), folder, form, artifact)
    print(*said, f"in {to}" if said else f"{to} holds this export already", sep="\n")
    if push is not None:
        print(f"pushed to {push_folder(folder, push, 'model' if form in MODEL_FORMS else 'dataset', public)}")


@app.command()
def doctor(
    recipe: Annotated[str | None, typer.Option("--recipe", help="Look at what this recipe needs as well.")] = None,
    run: Annotated[str | None, typer.Option("--run", help="Look at the store of this folder as well.")] = None,
    set_: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Examine this machine, a recipe and its endpoints, before anything is spent. Exit code 1 when a check fails."""
    from rich.console import Console

    from speed_ray.console.examination import show_examination
    from speed_ray.doctor.examine import examine
    from speed_ray.recipes import load_recipe

    loaded = load_recipe(recipe, set_ or ()) if recipe else None
    if not show_examination(examine(loaded, run), Console(soft_wrap=True), as_json):
        raise typer.Exit(1)


for _defined in (quality, init):  # in files of their own
    app.command()(_defined)


@app.command()
def report(
    run: RunArgument,
    to: Annotated[str | None, typer.Option("--to", help="The file.  [default: RUN/report.html]")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Again and again, until Ctrl-C.")] = False,
    proven: Annotated[bool, typer.Option("--verify", help="With the proof of `verify`.")] = False,
) -> None:
    """Write a run's report as one HTML file: funnel, rejects, cost, curves, scores, examples to look through."""
    from speed_ray.report.page import watch_report, write_report
    from speed_ray.storage.run import Run

    opened, file = Run(run), Path(to) if to else None
    if not watch:
        print(write_report(opened, file, proven))
        return
    with contextlib.suppress(KeyboardInterrupt):
        for where in watch_report(opened, file):
            print(f"{datetime.now():%H:%M:%S} {where}", flush=True)


@app.command()
def serve(
    model: Annotated[str, typer.Argument(help="A run, or a sentence-transformers model: a folder or a Hub name.")],
    name: Annotated[str | None, typer.Option("--name", help="What clients call it.  [default: its own name]")] = None,
    host: Annotated[str, typer.Option("--host", help="Who reaches it may ask: there are no keys.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 8000,
    replicas: Annotated[str, typer.Option("--replicas", help="2, or 1..4 to follow the load.")] = "1",
    cpus: Annotated[float, typer.Option("--cpus", min=0.01, help="CPUs, and threads, of each replica.")] = 1,
    gpus: Annotated[float, typer.Option("--gpus", min=0, help="GPUs of each replica.")] = 0,
) -> None:
    """Serve an embedder behind OpenAI's /v1/embeddings until Ctrl-C."""
    from speed_ray.serving.app import read_arguments, run_server  # imports Ray and torch

    signal.signal(signal.SIGTERM, _interrupt)
    run_server(read_arguments(model=model, name=name, replicas=replicas, cpus=cpus, gpus=gpus), host, port)


@app.command()
def head(
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Where other nodes join.")] = 6379,
    dashboard_port: Annotated[
        int, typer.Option("--dashboard-port", min=1, max=65535, help="Where jobs are submitted.")
    ] = 8265,
    cpus: NodeCpus = None,
    gpus: NodeGpus = None,
    labels: NodeLabels = None,
    temp_dir: TempDir = None,
    options: RayOptions = None,
) -> None:
    """Start a Ray cluster on this machine, behind a token, until Ctrl-C."""
    from speed_ray.on_ray import cluster

    cluster.head(port, dashboard_port, cluster.node_options(cpus, gpus, labels, temp_dir, options))


@app.command()
def join(
    address: Annotated[str, typer.Argument(help="As `speed-ray head` says: host:port.")],
    cpus: NodeCpus = None,
    gpus: NodeGpus = None,
    labels: NodeLabels = None,
    temp_dir: TempDir = None,
    options: RayOptions = None,
) -> None:
    """Add this machine to a Ray cluster until Ctrl-C."""
    from speed_ray.on_ray import cluster

    cluster.join(address, cluster.node_options(cpus, gpus, labels, temp_dir, options))


@app.command()
def sweep(run: RunArgument) -> None:
    """Delete the files of losing attempts, an hour after an artifact was published, and of unfinished writes."""
    from speed_ray.storage.run import ARTIFACTS, Run
    from speed_ray.storage.sweep import sweep_artifact, sweep_unfinished_writes

    opened = Run(run)
    opened.recipe()  # says so, when the folder is no run
    for name in ARTIFACTS:
        print(f"{name}: {sweep_artifact(opened.artifact(name))} orphaned files deleted")
    print(f"unfinished writes: {sweep_unfinished_writes(opened.store)} files deleted")


def _run_jobs(
    name: str | None, recipe_name: str, uri: str, overrides: list[str] | None, with_all_before: bool = False
) -> None:
    """Run one job, or all that a recipe needs up to it, its last by default; print the result and the next command."""
    from speed_ray import pipeline
    from speed_ray.console.job_end import end_lines
    from speed_ray.on_ray.session import shared_session
    from speed_ray.planning.price_limit import ask_before
    from speed_ray.recipes import load_recipe
    from speed_ray.recipes.needed_jobs import needed_jobs
    from speed_ray.storage.run import Run

    recipe, run = load_recipe(recipe_name, overrides or ()), Run(uri)
    name = needed_jobs(recipe)[-1] if name is None else name
    if with_all_before:
        ask_before(recipe, run)
    signal.signal(signal.SIGTERM, _interrupt)  # a cluster's polite end is a Ctrl-C
    try:
        with shared_session():
            for job in pipeline.up_to(name, recipe) if with_all_before else [pipeline.JOBS[name]]:
                job(run, recipe)
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped. Everything committed is kept in {uri}.\nTo go on, run the same command again."
        ) from None
    if name == "evaluate":
        print(f"next: {_command()} serve {shlex.quote(uri)}")  # its table is said already
        return
    print(*end_lines(run, recipe, name, _command(), f"--recipe {shlex.quote(recipe_name)}", overrides or ()), sep="\n")


def _command() -> str:
    """Return the command as the user typed it: perhaps `.venv/bin/speed-ray`."""
    return sys.argv[0] if sys.argv[0].endswith("speed-ray") else "speed-ray"


def _end(code: int) -> NoReturn:
    """End the process; at once where a job left Ray running, so that the code is ours (see on_ray/session.py)."""
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # a private Ray sees that its driver is gone, and goes too
    sys.exit(code)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt
