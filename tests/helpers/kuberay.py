"""What the Kubernetes API and KubeRay's operator would say to a manifest, without either.

Ray's kinds are held to the operator's own CRDs, where they lie beside the checkout, with unknown fields refused at
every level, and then to the rules that the operator checks in code (kuberay v1.7.0, utils/validation.go). The other
kinds are held to schemas of the few fields that cluster/ uses.
"""

import functools
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import yaml
from jsonschema.protocols import Validator
from packaging.version import InvalidVersion, Version

from tests.helpers.paths import SHARED

Manifest = dict[str, Any]
Schema = dict[str, Any]

CRDS = SHARED / "kuberay-crds"
RAY_KINDS = {"RayCluster": "rayclusters", "RayJob": "rayjobs", "RayService": "rayservices"}
MOST_NAME = {
    "RayCluster": 53,
    "RayJob": 47,
    "RayService": 47,
}  # the operator appends to it, and a Service's name has 63
DNS_LABEL = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
LABEL_KEY = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
LABEL_VALUE = r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$"


def problems(manifest: Manifest) -> list[str]:
    """Everything that would be refused, as `where: what`; empty for a manifest that would be taken."""
    kind = manifest.get("kind", "")
    if kind in RAY_KINDS:
        found = _against(crd(kind), manifest)
        return found or list(RULES[kind](manifest))
    if kind not in SCHEMAS:
        return [f"kind: nothing is known of {kind!r}"]
    return _against(SCHEMAS[kind], manifest)


def _against(schema: Schema, manifest: Manifest) -> list[str]:
    errors = _Kubernetes(schema).iter_errors(manifest)
    return [f"{error.json_path.removeprefix('$.')}: {error.message}" for error in errors]


def _unique(validator: Validator, keys: list[str], items: Any, schema: Schema) -> Iterator[jsonschema.ValidationError]:
    """`x-kubernetes-list-map-keys`: no two environment variables of one name, no two ports of one number."""
    if schema.get("x-kubernetes-list-type") == "map" and isinstance(items, list):
        named = [tuple(str(item.get(key)) for key in keys) for item in items]
        for twice in sorted({name for name in named if named.count(name) > 1}):
            yield jsonschema.ValidationError(f"{', '.join(twice)} is there twice")


_Kubernetes = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"x-kubernetes-list-map-keys": _unique})


@functools.cache
def crd(kind: str) -> Schema:
    """The schema that a CRD has for version v1, closed against fields that it does not name."""
    text = (CRDS / f"ray.io_{RAY_KINDS[kind]}.yaml").read_text(encoding="utf-8")
    definition = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    (version,) = [each for each in definition["spec"]["versions"] if each["name"] == "v1"]
    schema = version["schema"]["openAPIV3Schema"]
    _close(schema)
    schema["properties"] |= {"apiVersion": {"const": "ray.io/v1"}, "metadata": METADATA}
    return {**schema, "required": ["apiVersion", "kind", "metadata", "spec"]}


def _close(schema: Any) -> None:
    if isinstance(schema, list):
        for each in schema:
            _close(each)
    if not isinstance(schema, dict):
        return
    for each in schema.values():
        _close(each)
    takes_any = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not takes_any:
        schema["additionalProperties"] = False


def _object(required: str = "", **properties: Schema) -> Schema:
    """An object of these fields and no other."""
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


def _list(items: Schema, least: int = 1) -> Schema:
    return {"type": "array", "items": items, "minItems": least}


def _kind(kind: str, version: str, **fields: Schema) -> Schema:
    required = " ".join(["apiVersion", "kind", "metadata", *fields])
    return _object(required, apiVersion={"const": version}, kind={"const": kind}, metadata=METADATA, **fields)


TEXT: Schema = {"type": "string", "minLength": 1}
NAME: Schema = {"type": "string", "pattern": DNS_LABEL, "maxLength": 63}
LABELS: Schema = {
    "type": "object",
    "propertyNames": {"pattern": LABEL_KEY},
    "additionalProperties": {"type": "string", "pattern": LABEL_VALUE},
}
ANNOTATIONS: Schema = {"type": "object", "propertyNames": {"pattern": LABEL_KEY}, "additionalProperties": TEXT}
METADATA = _object("name", name=NAME, namespace=NAME, labels=LABELS, annotations=ANNOTATIONS)
SELECTOR = _object(matchLabels=LABELS)
PORT: Schema = {"type": "integer", "minimum": 1, "maximum": 65535}
CIDR: Schema = {"type": "string", "pattern": r"^[0-9a-f.:]+/\d{1,3}$"}
PEER = _object(
    podSelector=SELECTOR, namespaceSelector=SELECTOR, ipBlock=_object("cidr", cidr=CIDR, **{"except": _list(CIDR)})
)
PORTS = _list(_object("protocol port", protocol={"enum": ["TCP", "UDP"]}, port=PORT))
QUANTITY: Schema = {"type": "string", "pattern": r"^\d+(m|[KMGT]i?)?$"}
SECONDS: Schema = {"type": "string", "pattern": r"^\d+[smh]$"}

SCHEMAS: dict[str, Schema] = {
    "Namespace": _kind("Namespace", "v1"),
    "ServiceAccount": _kind("ServiceAccount", "v1", automountServiceAccountToken={"const": False}),
    "Secret": _kind("Secret", "v1", stringData={"type": "object", "additionalProperties": TEXT, "minProperties": 1}),
    "PersistentVolumeClaim": _kind(
        "PersistentVolumeClaim",
        "v1",
        spec=_object(
            "accessModes resources",
            accessModes=_list({"const": "ReadWriteMany"}),
            storageClassName=NAME,
            resources=_object("requests", requests=_object("storage", storage=QUANTITY)),
        ),
    ),
    "PodDisruptionBudget": _kind(
        "PodDisruptionBudget",
        "policy/v1",
        # The API has `maxUnavailable` and percentages too, which do not count for an operator's Pods.
        spec=_object("minAvailable selector", minAvailable={"type": "integer", "minimum": 1}, selector=SELECTOR),
    ),
    "NetworkPolicy": _kind(
        "NetworkPolicy",
        "networking.k8s.io/v1",
        spec=_object(
            "podSelector policyTypes",
            podSelector=SELECTOR,
            policyTypes=_list({"enum": ["Ingress", "Egress"]}),
            ingress=_list(_object("from", ports=PORTS, **{"from": _list(PEER)})),
            egress=_list(_object("to", ports=PORTS, to=_list(PEER))),
        ),
    ),
    "PodMonitor": _kind(
        "PodMonitor",
        "monitoring.coreos.com/v1",
        spec=_object(
            "selector podMetricsEndpoints",
            selector=SELECTOR,
            namespaceSelector=_object("matchNames", matchNames=_list(NAME)),
            podTargetLabels=_list({"type": "string", "pattern": LABEL_KEY}),
            podMetricsEndpoints=_list(
                _object(
                    "port interval",
                    port=NAME,
                    interval=SECONDS,
                )
            ),
        ),
    ),
    "PrometheusRule": _kind(
        "PrometheusRule",
        "monitoring.coreos.com/v1",
        spec=_object(
            "groups",
            groups=_list(
                _object(
                    "name rules",
                    name=TEXT,
                    rules=_list(
                        _object(
                            "alert expr for labels annotations",
                            alert={"type": "string", "pattern": "^[A-Z][A-Za-z]+$"},
                            expr=TEXT,
                            labels=_object("severity", severity={"enum": ["warning", "critical"]}),
                            annotations=_object("summary description", summary=TEXT, description=TEXT),
                            **{"for": SECONDS},
                        )
                    ),
                )
            ),
        ),
    ),
}


def pods(manifest: Manifest) -> Iterator[tuple[str, Manifest]]:
    """Where, and each Pod template of a manifest of Ray's."""
    for where, cluster in clusters(manifest):
        yield f"{where}.headGroupSpec", cluster["headGroupSpec"]["template"]
        for group in cluster.get("workerGroupSpecs", ()):
            yield f"{where}.{group['groupName']}", group["template"]


def clusters(manifest: Manifest) -> Iterator[tuple[str, Manifest]]:
    """Where, and the spec of the cluster in a manifest of Ray's, if it has one."""
    spec = manifest["spec"]
    field = {"RayCluster": None, "RayJob": "rayClusterSpec", "RayService": "rayClusterConfig"}[manifest["kind"]]
    if field is None:
        yield "spec", spec
    elif field in spec:
        yield f"spec.{field}", spec[field]


def _name(manifest: Manifest) -> Iterator[str]:
    most = MOST_NAME[manifest["kind"]]
    if len(manifest["metadata"]["name"]) > most:
        yield f"metadata.name: at most {most} characters"


def _cluster_rules(where: str, spec: Manifest) -> Iterator[str]:
    head, groups = spec["headGroupSpec"], spec.get("workerGroupSpecs", [])
    scaled = spec.get("enableInTreeAutoscaling", False)
    options = spec.get("autoscalerOptions", {})
    second = scaled and options.get("version", "v2") == "v2"  # the default from Ray 2.47 on
    variables = {each["name"]: each.get("value") for each in head["template"]["spec"]["containers"][0].get("env", [])}
    for name, group in [("headGroupSpec", head), *((group["groupName"], group) for group in groups)]:
        yield from _group_rules(f"{where}.{name}", group, second)
    for group in groups:
        at = f"{where}.{group['groupName']}"
        if not 0 <= group["minReplicas"] <= group.get("replicas", group["minReplicas"]) <= group["maxReplicas"]:
            yield f"{at}: minReplicas, replicas and maxReplicas are not in this order"
        if "idleTimeoutSeconds" in group and not second:
            yield f"{at}.idleTimeoutSeconds: only autoscaler v2 knows it"
        if group.get("suspend") and scaled:
            yield f"{at}.suspend: not with an autoscaler"
    if len({group["groupName"] for group in groups}) < len(groups):
        yield f"{where}.workerGroupSpecs: two groups have one name"
    if "RAY_enable_autoscaler_v2" in variables and (not scaled or "version" in options):
        yield f"{where}.headGroupSpec: RAY_enable_autoscaler_v2 beside autoscalerOptions.version, or without scaling"
    if "RAY_REDIS_ADDRESS" in variables and "gcsFaultToleranceOptions" not in spec:
        yield f"{where}.headGroupSpec: RAY_REDIS_ADDRESS without gcsFaultToleranceOptions"
    if spec.get("authOptions", {}).get("mode") == "token" and not _at_least(spec.get("rayVersion", ""), "2.52.0"):
        yield f"{where}.authOptions: a token needs rayVersion 2.52.0 or later"
    for gated in ("networkPolicy", "tlsOptions"):
        if gated in spec:
            yield f"{where}.{gated}: behind a feature gate that is off by default"
    if spec.get("gcsFaultToleranceOptions", {}).get("backend") == "rocksdb":
        yield f"{where}.gcsFaultToleranceOptions.backend: behind a feature gate that is off by default"


def _group_rules(where: str, group: Manifest, second: bool) -> Iterator[str]:
    started, pod = group.get("rayStartParams", {}), group["template"]["spec"]
    if not pod["containers"]:
        yield f"{where}: no container"
    if group.get("resources") and started.keys() & {"num-cpus", "num-gpus", "memory", "resources"}:
        yield f"{where}: resources both there and in rayStartParams"
    if "labels" in started:
        yield f"{where}.rayStartParams.labels: write the group's own labels"
    for key, value in group.get("labels", {}).items():
        if not (re.match(LABEL_KEY, key) and re.match(LABEL_VALUE, value)):
            yield f"{where}.labels: {key}: {value} has not a label's form"
    if second and pod.get("restartPolicy", "Never") != "Never":
        yield f"{where}.restartPolicy: autoscaler v2 wants Never"
    volumes = {volume["name"] for volume in pod.get("volumes", ())}
    for container in pod["containers"]:
        for mount in container.get("volumeMounts", ()):
            if mount["name"] not in volumes:
                yield f"{where}: there is no volume {mount['name']!r} to mount"


def _at_least(version: str, least: str) -> bool:
    try:
        return Version(version) >= Version(least)
    except InvalidVersion:
        return False


def _rules_of_a_cluster(manifest: Manifest) -> Iterator[str]:
    yield from _name(manifest)
    for where, spec in clusters(manifest):
        yield from _cluster_rules(where, spec)


def _rules_of_a_job(manifest: Manifest) -> Iterator[str]:
    yield from _rules_of_a_cluster(manifest)
    spec = manifest["spec"]
    mode, selector = spec.get("submissionMode", "K8sJobMode"), spec.get("clusterSelector")
    ends, deletion = spec.get("shutdownAfterJobFinishes", False), spec.get("deletionStrategy", {})
    if ("rayClusterSpec" in spec) == bool(selector):
        yield "spec: either rayClusterSpec or clusterSelector"
    if selector and not selector.get("ray.io/cluster"):
        yield "spec.clusterSelector: name the cluster as ray.io/cluster"
    if spec.get("suspend") and (selector or not ends):
        yield "spec.suspend: needs shutdownAfterJobFinishes, and a cluster of its own"
    if spec.get("ttlSecondsAfterFinished") and not ends:
        yield "spec.ttlSecondsAfterFinished: needs shutdownAfterJobFinishes"
    if spec.get("backoffLimit") and (selector or mode == "InteractiveMode"):
        yield "spec.backoffLimit: neither with clusterSelector nor in InteractiveMode"
    if mode == "SidecarMode" and (selector or spec.keys() & {"submitterConfig", "submitterPodTemplate"}):
        yield "spec.submissionMode: SidecarMode has no submitter of its own, and no clusterSelector"
    if deletion.get("deletionRules") and (ends or spec.get("ttlSecondsAfterFinished")):
        yield "spec.deletionStrategy: deletionRules exclude shutdownAfterJobFinishes and its time"
    if spec.get("rayClusterSpec", {}).get("authOptions", {}).get("enableK8sTokenAuth"):
        yield "spec.rayClusterSpec.authOptions.enableK8sTokenAuth: not for a RayJob"
    if spec.get("activeDeadlineSeconds", 1) <= 0:
        yield "spec.activeDeadlineSeconds: must be positive"
    try:
        yaml.safe_load(spec.get("runtimeEnvYAML", ""))
    except yaml.YAMLError as error:
        yield f"spec.runtimeEnvYAML: {error}"
    if not spec.get("entrypoint"):
        yield "spec.entrypoint: nothing to run"


def _rules_of_a_service(manifest: Manifest) -> Iterator[str]:
    yield from _rules_of_a_cluster(manifest)
    spec = manifest["spec"]
    if spec["rayClusterConfig"]["headGroupSpec"].get("headService", {}).get("metadata", {}).get("name"):
        yield "spec.rayClusterConfig.headGroupSpec.headService: the operator names it"
    upgrade = spec.get("upgradeStrategy", {}).get("type", "NewCluster")
    if upgrade not in ("NewCluster", "NewClusterWithIncrementalUpgrade", "None"):
        yield f"spec.upgradeStrategy.type: there is no {upgrade}"


RULES = {"RayCluster": _rules_of_a_cluster, "RayJob": _rules_of_a_job, "RayService": _rules_of_a_service}
