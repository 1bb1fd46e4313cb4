"""What a cluster's nodes export of one run at this moment (meters.py), read as a Prometheus would read it."""

import os
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator

import ray
from prometheus_client.parser import text_string_to_metric_families

from speed_ray.errors import UserError
from speed_ray.on_ray.prometheus_metrics import COUNTERS, GAUGES, HISTOGRAMS

Sums = dict[tuple[str, ...], float]

# What a node's page calls a sample -> our labels in order, without the run's.
LABELS = {
    **{f"ray_{name}_total": tags[1:] for name, (_, tags) in COUNTERS.items()},
    **{f"ray_{name}": tags[1:] for name, (_, tags) in GAUGES.items()},
    **{f"ray_{name}_{part}": tags[1:] for name, (_, tags) in HISTOGRAMS.items() for part in ("sum", "count")},
}


def join() -> bool:
    """Join the cluster that RAY_ADDRESS names; False where it names none. Raises UserError where none answers."""
    address = os.environ.get("RAY_ADDRESS")
    if not address or ray.is_initialized():
        return bool(address)
    try:
        ray.init(address=address, logging_level="error", log_to_driver=False)
    except Exception as error:  # Ray raises plain ones
        raise UserError(f"The cluster at {address} (RAY_ADDRESS) does not answer: {error}") from None
    return True


def pages() -> Iterator[str]:
    """What every node exports; one that goes is left out."""
    for node in ray.nodes():
        if node["Alive"]:
            address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
            try:
                with urllib.request.urlopen(address, timeout=5) as answer:
                    yield answer.read().decode()
            except (urllib.error.URLError, TimeoutError):
                continue


def sums(run: str, exported: Iterator[str]) -> Sums:
    """Add up one run's samples over all nodes, by name and our labels: ("rows", "examples", "accepted")."""
    found: Sums = defaultdict(float)
    for page in exported:
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                if sample.name in LABELS and sample.labels.get("run") == run:
                    name = sample.name.removeprefix("ray_speed_ray_").removesuffix("_total")
                    found[name, *(sample.labels.get(label, "") for label in LABELS[sample.name])] += sample.value
    return found


def lines(found: Sums) -> list[str]:
    """Say it for people: a line for each engine, each training, and the store."""
    engines = [_engine(found, stage) for stage in sorted({key[1] for key in found if key[0] == "engine_requests"})]
    trainings = [_training(found, model) for model in sorted({key[1] for key in found if key[0] == "training_step"})]
    asked = {verb: count for (name, verb, *_), count in sorted(found.items()) if name == "store_requests"}
    store = f"store: {sum(asked.values()):,.0f} requests from engines (" if asked else ""
    counted = ", ".join(f"{verb} {count:,.0f}" for verb, count in asked.items())
    return [*engines, *trainings, *([f"{store}{counted})"] if asked else [])]


def _engine(found: Sums, stages: str) -> str:
    """Say what the engines of one pool are at; a pool may answer for several stages."""
    running, waiting = (found["engine_requests", stages, state] for state in ("running", "waiting"))
    parts = [f"{running:,.0f} requests running, {waiting:,.0f} waiting"]
    hit, miss = (found["prefix_cache_tokens", stages, outcome] for outcome in ("hit", "miss"))
    if hit + miss:
        parts.append(f"{hit / (hit + miss):.0%} of prompt tokens cached")
    accepted = 0.0
    for stage in stages.split(" and "):
        accepted += found["rows", stage, "accepted"]
        if shards := found["shard_seconds_count", stage]:
            parts.append(f"{stage}: {found['shard_seconds_sum', stage] / shards:,.1f} s a shard")
        parts += [f"{found['retries', stage]:,.0f} retries"] if found["retries", stage] else []
        parts += [f"${found['teacher_dollars', stage]:,.2f}"] if found["teacher_dollars", stage] else []
    if hours := found["gpu_seconds", stages] / 3600:
        parts.append(f"{accepted / hours:,.0f} accepted rows a GPU-hour")
    return f"engines of {stages}: {' · '.join(parts)}"


def _training(found: Sums, model: str) -> str:
    step, loss, speed = (found[f"training_{name}", model] for name in ("step", "loss", "examples_per_second"))
    return f"training of {model}: step {step:,.0f} · loss {loss:.4g} · {speed:,.1f} examples/s"
