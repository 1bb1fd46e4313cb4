"""A fleet of GPUs that are simulated, everything else being real: driver, Ray, pool, shards, store.

    python -m benchmarks.cluster.fleet --gpus 1 8 64 256

An engine answers as an 8B model on one H100 would: 256 requests in flight, 6,400 output tokens a second, 350 tokens an
answer give or take up to 90%, prompts read at 50,000 tokens a second. A request decodes 25 tokens a second however few
others there are: an engine is at its full rate only with all 256 in flight (a real one has most of it with half), so
the share of engine time that is busy is the share of those places that are taken. It is what the engines themselves
say they decoded, in the window from the last engine's first token to the last shard that was begun, after which there
is no work left to hand out.

Up to 64 GPUs every one is an actor, in a process of its own (150 MB), on a node (a raylet) of up to 8. On two cores
64 engines' rows cost more CPU than there is, so their time runs slower than ours (`dilation`: all rates of an engine
are divided by it); 1 and 8 run in real time. For 256 such processes there is no memory: there an actor stands for
four GPUs (1,024 in flight, four times the rates). So 64 shows that 64 actors on 8 nodes are kept busy, a delay of
Ray's own counting for half of what it is; 256 shows that shards, commits and driver keep up with that many rows, a
delay counting for an eighth, and does not show what 256 actors cost the driver. Rows and seconds are in simulated
time, CPU is in real seconds: a row, a shard and a process cost what they cost anywhere.

Beside it, on paper: what 10 million to a billion examples take, from these figures.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import process, report
from benchmarks.cluster.bucket import NAME, Bucket
from benchmarks.cluster.nodes import Nodes, Watch, notes
from benchmarks.orchestration import FAST
from speed_ray.storage.run import EXAMPLES
from speed_ray.storage.shards import READERS, Commit

H100 = {"prefill": 50_000.0, "decode": 6_400.0, "max_tokens_per_stream": 25.0}  # tokens a second, an 8B model
IN_FLIGHT, TOKENS, SPREAD = 256, 350, 0.9
SHARD_ROWS = 256
ROWS_A_SECOND = H100["decode"] / TOKENS  # of one GPU that is always busy

# Assumptions of the bill. In dollars: an H100 rented by the hour, S3's list prices.
GPU_HOUR, PUTS, GETS, GB_MONTH = 2.50, 5e-6, 0.4e-6, 0.023
TEXT = 350 * 4 * 2 // 2  # bytes a row: real text is in the reply and in the record, and zstd halves it
# Files of 256 tasks that a shard of 256 rows reads: 78 rows of each heavy kind in 2.5, 11 of the others in 1.2 files.
# Here all tasks are in four files, which an actor reads once; with a million, 64 actors share no two shards in a row.
TASK_FILES = 3.7
A_REQUEST = 0.03  # seconds that S3 takes to answer one
# What is still bearable, in the names of the bill: half the memory of a head node of 64 GB, a quarter of an hour.
BEARABLE = {"driver memory GB": 32, "minutes to resume": 15, "manifest GB": 2, "hours of publication": 2}


@dataclass(frozen=True)
class Shape:
    """So many simulated GPUs, on so many nodes; `each` of them behind one actor, `dilation` times slower."""

    gpus: int
    nodes: int
    each: int = 1
    dilation: float = 1.0
    minutes: float = 1.0  # simulated, with all engines at work

    @property
    def actors(self) -> int:
        """Processes that hold an engine."""
        return self.gpus // self.each


SHAPES = {
    1: Shape(1, 1),
    8: Shape(8, 1),
    64: Shape(64, 8, dilation=2, minutes=1.5),
    256: Shape(256, 8, each=4, dilation=8, minutes=1.2),
}


def engine(each: int, dilation: float, **folders: Path) -> str:
    """The recipe's engine that stands for `each` H100s, in slow motion."""
    rates = {
        "prefill": H100["prefill"] * each / dilation,
        "decode": H100["decode"] * each / dilation,
        "max_tokens_per_stream": H100["max_tokens_per_stream"] / dilation,
    }
    sizes = {"max_concurrency": IN_FLIGHT * each, "output_tokens": TOKENS, "spread": SPREAD}
    noted = {name: str(folder) for name, folder in folders.items()}
    return json.dumps({"engine": "simulated", **rates, **sizes, **noted})


def overrides(generator: str, rows: int, pool: dict[str, Any], shard_rows: int = SHARD_ROWS) -> list[str]:
    """One run of so many rows; its tasks come from an engine that answers at once."""
    return [
        f"teacher={FAST}",
        f"generator={generator}",
        f"synthesize.examples={rows}",
        f"synthesize.shard_rows={shard_rows}",
        "synthesize.sampling={max_tokens: 800}",
        f"synthesize.pool={json.dumps(pool)}",
    ]


def begun(folder: Path, changes: list[str]) -> Path:
    """A run with its tasks, made once: which engine writes the examples is no part of them."""
    first = folder / "begun"
    if not first.exists():
        process.job("brainstorm", first, changes)
    run = Path(tempfile.mkdtemp(prefix="run-", dir=folder))
    shutil.copytree(first, run, dirs_exist_ok=True, ignore=shutil.ignore_patterns("recipe.yaml"))
    return run


def measure(folder: Path, shape: Shape, minutes: float | None) -> dict[str, Any]:
    """Drive a fleet with enough rows to keep it busy for its minutes, those of its start not counted."""
    busy = Path(tempfile.mkdtemp(prefix="busy-", dir=folder))
    # Engines start one after another here, and the first ones work meanwhile: some 2 s of this machine for each.
    start = 2.0 * shape.actors / shape.dilation
    rows = int(ROWS_A_SECOND * shape.gpus * ((minutes or shape.minutes) * 60 + start / 2 + 30))
    pool = {"min_size": shape.actors, "max_size": shape.actors, "num_cpus": 0, "num_gpus": 1}
    changes = overrides(engine(shape.each, shape.dilation, utilization_log=busy), rows, pool)
    run = begun(folder, changes)
    with Nodes(shape.nodes, shape.actors // shape.nodes) as nodes, Watch() as watch:
        running = process.Running("synthesize", run, changes, nodes.environment)
        ended = running.ended()
    return {"rows": rows, **figures(shape, run, busy, ended, watch)}


def figures(shape: Shape, run: Path, busy: Path, usage: process.Usage, watch: Watch) -> dict[str, Any]:
    """Everything that a finished drive left to be read."""
    commits = process.commits(run, EXAMPLES)
    noted = dict(notes(busy))
    # An actor is handed twice the shards that it works on: in a short run the first ones may have them all.
    assert len(noted) == shape.actors, f"{len(noted)} of {shape.actors} engines had work: ask for more --minutes"
    since, until = window(noted.values(), commits)
    seconds = (until - since) / shape.dilation  # of the fleet's time
    decoded = sum(at(until, note) - at(since, note) for note in noted.values())
    rows = sum(commit.counts.accepted + commit.counts.rejected for commit in commits)
    tokens = sum(commit.counts.output_tokens for commit in commits)
    done = decoded / tokens * rows  # in the window
    cpu = np.array(watch.cpu)
    ours, theirs = (np.interp([since, until], cpu[:, 0], cpu[:, kind]) for kind in (1, 2))
    driver = at(until, usage.driver_cpu) - at(since, usage.driver_cpu)
    first = min(commit.started for commit in commits)
    last = max(commit.finished for commit in commits)
    whole = tokens / (H100["decode"] * shape.gpus * (last - first) / shape.dilation)
    stored = sum(file.bytes for commit in commits for file in commit.files.values())
    published = json.loads((run / EXAMPLES / "_SUCCESS").read_bytes())["published"]
    return {
        "actors": shape.actors,
        "nodes": shape.nodes,
        "dilation": shape.dilation,
        "window, simulated s": seconds,
        "busy share of engine time": decoded / (H100["decode"] * shape.gpus * seconds),
        "the same with start and end": whole,
        "rows/s": done / seconds,
        "all engines at work after, real s": since - first,
        "driver CPU ms a row": 1000 * driver / done,
        "driver CPU ms a shard": 1000 * driver / done * SHARD_ROWS,
        "driver CPU, share of a core": driver / (until - since),
        "engines' CPU ms a row": 1000 * float(ours[1] - ours[0]) / done,
        "Ray's other CPU ms a row": 1000 * float(theirs[1] - theirs[0]) / done,
        "driver memory MB": usage.driver_rss / 1e6,
        "engine process's own memory MB": watch.engine_bytes / 1e6,
        "accepted": sum(commit.counts.accepted for commit in commits),
        "bytes stored a row": stored / rows,
        "bytes of manifest a shard": (run / EXAMPLES / "_MANIFEST.json").stat().st_size / len(commits),
        "publication, real s for 1,000 shards": 1000 * (published - last) / len(commits),
    }


def window(noted: Iterable[Sequence[tuple[float, float]]], commits: Sequence[Commit]) -> tuple[float, float]:
    """From the last engine's first token to the last shard's beginning: seconds since the epoch."""
    since = max(next(when for when, tokens in note if tokens) for note in noted)
    until = max(commit.started for commit in commits)
    assert until > since + 10, "the rows ran out while engines were still starting: ask for more --minutes"
    return since, until


def at(when: float, noted: Sequence[tuple[float, float]]) -> float:
    """What a count that was noted now and then was at a time between."""
    times, counts = np.array(noted).T
    return float(np.interp(when, times, counts))


def requests() -> dict[str, dict[str, float]]:
    """What a run asks of its store, by verb: for each shard, and whatever its size. Counted by an S3 at its end."""
    counted = []
    pool = {"min_size": 2, "max_size": 2}
    few, many = 20, 100
    with Bucket() as bucket:
        for number, shards in enumerate((few, many)):
            changes = overrides(FAST, shards * SHARD_ROWS, pool)
            run = f"s3://{NAME}/run-{number}"
            process.job("brainstorm", run, changes)
            bucket.requests.clear()
            process.job("synthesize", run, changes)
            counted.append(dict(bucket.requests))
    verbs = sorted(set().union(*counted))
    a_shard = {verb: (counted[1].get(verb, 0) - counted[0].get(verb, 0)) / (many - few) for verb in verbs}
    fixed = {verb: counted[0].get(verb, 0) - a_shard[verb] * few for verb in verbs}
    return {"a shard": a_shard, "a run": fixed}


def driver(folder: Path, shards: Sequence[int]) -> dict[str, float]:
    """What a shard costs the driver's memory: two runs of four rows a shard, one with many more shards."""
    seen = []
    for count in shards:
        changes = overrides(FAST, 4 * count, {}, shard_rows=4)
        usage = process.job("synthesize", begun(folder, changes), changes)
        seen.append(usage.driver_rss)
    return {"base MB": seen[0] / 1e6, "kB a shard": (seen[-1] - seen[0]) / (shards[-1] - shards[0]) / 1e3}


def bill(examples: int, shard_rows: int, of: dict[str, Any]) -> dict[str, Any]:
    """What so many examples take, from the figures of 64 GPUs."""
    shards = examples / shard_rows
    hours = examples / (ROWS_A_SECOND * of["busy share of engine time"]) / 3600
    asked = {verb: a_shard * shards + of["a run"][verb] for verb, a_shard in of["a shard"].items()}
    asked["GET"] += examples / SHARD_ROWS * TASK_FILES
    puts = sum(count for verb, count in asked.items() if verb in ("PUT", "POST", "LIST"))
    gigabytes = examples * (of["bytes stored a row"] + TEXT) / 1e9
    found = {
        "GPU-hours": hours,
        "days on 64 GPUs": hours / 64 / 24,
        "shards": int(shards),
        "requests to the store": int(sum(asked.values())),
        "stored GB": gigabytes,
        "manifest GB": shards * of["bytes of manifest a shard"] / 1e9,
        "driver memory GB": (of["base MB"] * 1e6 + of["kB a shard"] * 1e3 * shards) / 1e9,
        "GPUs that one driver's core keeps busy": 1000 / (of["driver CPU ms a shard"] / shard_rows) / ROWS_A_SECOND,
        # A driver that goes on lists what is committed, twice, and reads each commit once for its progress bar.
        "minutes to resume": (shards / 1000 * 2 + shards / READERS) * A_REQUEST / 60,
        # It reads each commit again, and every file: here from local disk, there two files a shard from S3.
        "hours of publication": shards
        * (of["publication, real s for 1,000 shards"] / 1000 + 3 * A_REQUEST / READERS)
        / 3600,
        "$ for GPUs": hours * GPU_HOUR,
        "$ for requests": puts * PUTS + (sum(asked.values()) - puts) * GETS,
        "$ for a month of storage": gigabytes * GB_MONTH,
    }
    broken = {name: found[name] / most for name, most in BEARABLE.items() if found[name] > most}
    return {
        **found,
        "more than is bearable, worst first": ", ".join(sorted(broken, key=lambda name: -broken[name])) or "nothing",
    }


def table(columns: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """One line for each figure, one column for each fleet."""
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    return [{"": name, **{title: column.get(name) for title, column in columns.items()}} for name in names]


def kept(file: Path | None, part: str, measured: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Measure a part, or take it from a run that was stopped: all of them take this machine half an hour."""
    parts: dict[str, Any] = json.loads(file.read_text()) if file and file.exists() else {}
    if part not in parts:
        began = time.monotonic()
        parts[part] = measured()
        report.say(f"fleet: {part}, {time.monotonic() - began:.0f} s: {parts[part]}")
        if file:
            file.write_text(json.dumps(parts))
    found: dict[str, Any] = parts[part]
    return found


def main() -> None:
    parser = report.options(__doc__)
    parser.add_argument("--gpus", type=int, nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--minutes", type=float, help="simulated, with all engines at work; about 1")
    parser.add_argument("--shards", type=int, nargs=2, default=[500, 3_000], help="to weigh the driver with")
    parser.add_argument("--kept", type=Path, help="a file of the parts that are done, to go on after a stop")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fleet-") as name:
        folder = Path(name)
        asked = kept(options.kept, "requests to the store", requests)
        weighed = kept(options.kept, "the driver's memory", lambda: driver(folder, options.shards))
        seen = {
            gpus: kept(options.kept, f"{gpus} GPUs", lambda gpus=gpus: measure(folder, SHAPES[gpus], options.minutes))
            for gpus in options.gpus
        }
    emit(seen, asked, weighed, options.json)


def emit(seen: dict[int, dict[str, Any]], asked: dict[str, Any], weighed: dict[str, Any], as_json: bool) -> None:
    """Print what was seen of each fleet, and what follows from it on paper."""
    for each in seen.values():
        each["store requests for 1,000 rows"] = sum(asked["a shard"].values()) / SHARD_ROWS * 1000
    least, most = min(seen), 64 if 64 in seen else max(seen)
    scaling = seen[most]["rows/s"] / seen[least]["rows/s"] / (most / least)
    seen[most] |= {f"scaling from {least}": scaling}
    known = {**seen[most], **asked, **weighed}
    paper = {
        f"{examples:,} examples, {shard_rows:,} a shard": bill(examples, shard_rows, known)
        for examples, shard_rows in ((10**7, 256), (10**8, 256), (10**9, 256), (10**9, 2_048))
    }
    figure = seen[most]["busy share of engine time"]
    said = f"requests a shard: {asked['a shard']}, beside them a run: {asked['a run']}; driver's memory: {weighed}"
    columns = {f"{gpus} GPUs": column for gpus, column in seen.items()} | paper
    report.emit(
        report.Result(
            "fleet",
            figure,
            ">= 0.95 with 64 GPUs, and rows/s >= 0.9 of 64 times those of one",
            f"share of engine time that is busy, {most} simulated GPUs",
            figure >= 0.95 and scaling >= 0.9 and most >= 64,
            [*table(columns), {"": said}],
        ),
        as_json,
    )


if __name__ == "__main__":
    main()
