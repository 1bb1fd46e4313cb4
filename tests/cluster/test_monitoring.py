"""The dashboard and the alerts ask Prometheus for metrics that we export, by labels that these have."""

import json
import re
from collections.abc import Iterator

import jsonpatch
import pytest

from speed_ray.on_ray.prometheus_metrics import COUNTERS, GAUGES, HISTOGRAMS
from tests.helpers import kuberay
from tests.helpers.kubectl import Manifest, render
from tests.helpers.paths import ROOT

MONITORING = ROOT / "cluster" / "monitoring"
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text(encoding="utf-8"))

# Name, kind, and its labels beside `run`, with their values where these are few. test_meters.py sees all of them live.
KINDS = {"counter": COUNTERS, "gauge": GAUGES, "histogram": HISTOGRAMS}
FEW = {
    ("speed_ray_rows", "outcome"): {"accepted", "rejected"},
    ("speed_ray_tokens", "direction"): {"in", "out"},
    ("speed_ray_commits", "outcome"): {"won", "lost"},
    ("speed_ray_engine_requests", "state"): {"running", "waiting"},
    ("speed_ray_prefix_cache_tokens", "outcome"): {"hit", "miss"},
}
METERS: dict[str, tuple[str, dict[str, set[str]]]] = {
    name: (kind, {label: FEW.get((name, label), set()) for label in labels if label != "run"})
    for kind, named in KINDS.items()
    for name, (_, labels) in named.items()
}
SUFFIXES = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}  # as Ray exports them
EXPORTED = {f"ray_{name}{suffix}": name for name, (kind, _) in METERS.items() for suffix in SUFFIXES[kind]}
WORDS = {"sum", "max", "by", "rate", "increase", "histogram_quantile", "on", "group_left", "unless", "label_values"}
LABEL = re.compile(r'(\w+)="([^"]*)"')


def wrong(query: str) -> Iterator[str]:
    """What Prometheus would find nothing for, or not understand."""
    used: set[str] = set()
    for name, matchers in re.findall(r"\b(ray_\w+)(?:\{([^}]*)\})?", query):
        if name not in EXPORTED:
            yield f"no metric {name}"
            continue
        labels = METERS[EXPORTED[name]][1] | {"run": set(), "le": set()}
        used |= labels.keys()
        for label, value in LABEL.findall(matchers):
            if label not in labels or (labels[label] and value not in labels[label]):
                yield f'{name} has no {label}="{value}"'
        if LABEL.sub("", matchers).strip(", "):
            yield f"cannot read {{{matchers}}}"
    if not used:
        yield "no metric at all"
    plain = re.sub(r"\{[^}]*\}|\[[^]]*\]|\$\w+", " ", query)
    yield from (f"{word}: neither a function nor a label" for word in _words(plain) - WORDS - used - EXPORTED.keys())
    if any(query.count(left) != query.count(right) for left, right in ("()", "{}", "[]")):
        yield "brackets do not match"


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z_]\w*", text))


def queries() -> dict[str, str]:
    """Every query of the dashboard and of the alerts, by where it stands."""
    found = {}
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            found[f"{panel['title']} {target['refId']}"] = target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            found[f"${variable['name']}"] = variable["query"]["query"]
    for group in _one("PrometheusRule")["spec"]["groups"]:
        found |= {rule["alert"]: rule["expr"] for rule in group["rules"]}
    return found


def _one(kind: str) -> Manifest:
    (manifest,) = [each for each in render(MONITORING) if each["kind"] == kind]
    return manifest


@pytest.mark.parametrize("where", queries())
def test_a_query_names_what_is_exported(where: str) -> None:
    assert not list(wrong(queries()[where]))


def test_every_metric_is_shown() -> None:
    shown = {EXPORTED[name] for query in queries().values() for name in re.findall(r"\bray_\w+", query)}
    assert shown == METERS.keys()


@pytest.mark.parametrize(
    "query",
    [
        "rate(ray_speed_ray_rows[5m])",  # a counter without its suffix
        "rate(ray_speed_ray_row_total[5m])",
        'ray_speed_ray_training_loss{stage="x"}',
        'rate(ray_speed_ray_rows_total{outcome="reject"}[5m])',
        "sum by (verbs) (rate(ray_speed_ray_store_requests_total[5m]))",
        "summ(ray_speed_ray_training_step)",
        "sum(rate(ray_speed_ray_rows_total[5m])",
        "up",
    ],
)
def test_a_wrong_query_is_found(query: str) -> None:
    assert list(wrong(query))


def test_panels_lie_beside_each_other_and_have_one_source() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        for place in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
            assert taken.setdefault(place, panel["title"]) == panel["title"]
        assert panel["type"] == "row" or panel["datasource"]["uid"] == "${datasource}"
    identifiers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(identifiers)) == len(identifiers)
    assert {variable["name"] for variable in DASHBOARD["templating"]["list"]} >= {"datasource", "run", "stage"}


@pytest.mark.parametrize("kind", ["PodMonitor", "PrometheusRule"])
def test_the_operators_manifests_would_be_taken(kind: str) -> None:
    assert not kuberay.problems(_one(kind))


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("PodMonitor", "spec/podMetricsEndpoints/0/port"),
        ("PodMonitor", "spec/namespaceSelector/matchNames"),
        ("PrometheusRule", "spec/groups/0/rules/0/expr"),
        ("PrometheusRule", "spec/groups/0/rules/0/labels/severity"),
    ],
)
def test_a_planted_typo_is_caught(kind: str, key: str) -> None:
    manifest = _one(kind)
    jsonpatch.apply_patch(manifest, [{"op": "move", "from": f"/{key}", "path": f"/{key}x"}], in_place=True)
    assert kuberay.problems(manifest)


def test_the_monitor_finds_our_pods() -> None:
    (cluster,) = [each for each in render(MONITORING.parent / "kuberay" / "base") if each["kind"] == "RayCluster"]
    monitor = _one("PodMonitor")["spec"]
    assert monitor["namespaceSelector"]["matchNames"] == [cluster["metadata"]["namespace"]]
    for where, pod in kuberay.pods(cluster):
        assert monitor["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items(), where
