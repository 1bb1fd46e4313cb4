"""Read the metrics that the nodes of a Ray cluster export, as a Prometheus would."""

import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator

import ray
from prometheus_client.parser import text_string_to_metric_families

from speed_ray.on_ray.prometheus_metrics import COUNTERS, GAUGES, HISTOGRAMS

# A sample's name on a node's page -> our labels in order, without the run's.
LABELS = {
    **{f"ray_{name}_total": tags[1:] for name, (_, tags) in COUNTERS.items()},
    **{f"ray_{name}": tags[1:] for name, (_, tags) in GAUGES.items()},
    **{f"ray_{name}_{part}": tags[1:] for name, (_, tags) in HISTOGRAMS.items() for part in ("sum", "count")},
}


def metrics_of(run: str) -> dict[tuple[str, ...], float]:
    """Add up one run's samples over all nodes, by name and our labels: ("rows", "examples", "accepted")."""
    found: dict[tuple[str, ...], float] = defaultdict(float)
    for page in _pages():
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                if sample.name in LABELS and sample.labels.get("run") == run:
                    name = sample.name.removeprefix("ray_speed_ray_").removesuffix("_total")
                    found[name, *(sample.labels.get(label, "") for label in LABELS[sample.name])] += sample.value
    return found


def _pages() -> Iterator[str]:
    for node in ray.nodes():
        address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                yield answer.read().decode()
        except (urllib.error.URLError, TimeoutError):
            continue
