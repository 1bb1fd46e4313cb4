"""Check manifests as the Kubernetes API and KubeRay's operator would, without either.

Ray's kinds are held to the operator's own CRDs, where they lie beside the checkout, with unknown fields refused at
every level, and then to those rules of the operator's code (kuberay v1.7.0, utils/validation.go) that concern a field
which cluster/ uses. The other kinds are held to the few fields that cluster/ uses.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jsonschema
import yaml
from jsonschema.protocols import Validator

from tests.helpers.kubectl import Manifest
from tests.helpers.paths import SHARED

Schema = dict[str, Any]

CRDS = SHARED / "kuberay-crds"
RAY_KINDS = {"RayCluster": "rayclusters", "RayJob": "rayjobs", "RayService": "rayservices"}
MAX_NAME = {"RayCluster": 53, "RayJob": 47, "RayService": 47}  # characters: a Service's name, made of it, has 63

# Fields that the rules below are about. For another one, read its rules in validation.go and add both.
USED = {
    "RayJob": "entrypoint submissionMode backoffLimit preRunningDeadlineSeconds shutdownAfterJobFinishes "
    "ttlSecondsAfterFinished suspend clusterSelector rayClusterSpec",
    "RayService": "serveConfigV2 excludeHeadPodFromServeSvc upgradeStrategy rayClusterConfig",
    "cluster": "rayVersion authOptions enableInTreeAutoscaling autoscalerOptions headGroupSpec workerGroupSpecs",
    "authOptions": "mode secretName",
    "group": "groupName priority minReplicas maxReplicas replicas idleTimeoutSeconds labels rayStartParams template",
    "rayStartParams": "num-cpus",
}
RESERVED = {"RAY_enable_autoscaler_v2", "RAY_REDIS_ADDRESS"}  # variables that stand for fields of the cluster

# Each field, then what its value must match. `~`: may be left out; `*`: any names. Other fields are refused.
SHAPES = yaml.safe_load(r"""
Labels: &labels {"*": "([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?"}
Selector: &selector {matchLabels~: *labels}
Metadata: &metadata
  name: &name "[a-z]([-a-z0-9]{0,61}[a-z0-9])?"
  namespace~: *name
  labels~: *labels
  annotations~: {"*": ".+"}
Namespace: {apiVersion: v1, kind: Namespace, metadata: *metadata}
ServiceAccount: {apiVersion: v1, kind: ServiceAccount, metadata: *metadata, automountServiceAccountToken: false}
Secret: {apiVersion: v1, kind: Secret, metadata: *metadata, stringData: {"*": ".+"}}
PersistentVolumeClaim:
  apiVersion: v1
  kind: PersistentVolumeClaim
  metadata: *metadata
  spec:
    accessModes: [ReadWriteMany]
    storageClassName~: *name
    resources: {requests: {storage: '\d+(m|[KMGT]i?)?'}}
PodDisruptionBudget:
  apiVersion: policy/v1
  kind: PodDisruptionBudget
  metadata: *metadata
  # The API has `maxUnavailable` and percentages too, which do not count for an operator's Pods.
  spec: {minAvailable: number, selector: *selector}
NetworkPolicy:
  apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata: *metadata
  spec:
    podSelector: *selector
    policyTypes: [Ingress|Egress]
    ingress~:
      - ports~: &ports [{protocol: TCP|UDP, port: number}]
        from: &peers
          - podSelector~: *selector
            namespaceSelector~: *selector
            ipBlock~: {cidr: &cidr '[0-9a-f.:]+/\d{1,3}', except~: [*cidr]}
    egress~: [{ports~: *ports, to: *peers}]
PodMonitor:
  apiVersion: monitoring.coreos.com/v1
  kind: PodMonitor
  metadata: *metadata
  spec:
    selector: *selector
    namespaceSelector~: {matchNames~: [*name]}
    podTargetLabels~: ["([-a-z0-9.]+/)?[-A-Za-z0-9_.]+"]
    podMetricsEndpoints: [{port: *name, interval: &duration '\d+[smh]'}]
PrometheusRule:
  apiVersion: monitoring.coreos.com/v1
  kind: PrometheusRule
  metadata: *metadata
  spec:
    groups:
      - name: .+
        rules:
          - alert: "[A-Z][A-Za-z]+"
            expr: .+
            for: *duration
            labels: {severity: warning|critical}
            annotations: {summary: .+, description: .+}
""")


def problems(manifest: Manifest) -> list[str]:
    """Return all that would be refused, as `where: what`; nothing for a manifest that would be taken."""
    kind = manifest.get("kind", "")
    if kind in RAY_KINDS:
        return _against(crd(kind), manifest) or list(_rules(kind, manifest))
    return _against(_schema(SHAPES[kind]), manifest) if kind in SHAPES else [f"kind: nothing is known of {kind!r}"]


def pods(manifest: Manifest) -> Iterator[tuple[str, Manifest]]:
    """Yield the place and the template of each Pod of a manifest of Ray's."""
    for where, cluster in clusters(manifest):
        yield f"{where}.headGroupSpec", cluster["headGroupSpec"]["template"]
        for group in cluster.get("workerGroupSpecs", ()):
            yield f"{where}.{group['groupName']}", group["template"]


def clusters(manifest: Manifest) -> Iterator[tuple[str, Manifest]]:
    """Yield the place and the spec of the cluster in a manifest of Ray's, if it has one."""
    spec = manifest["spec"]
    field = {"RayCluster": None, "RayJob": "rayClusterSpec", "RayService": "rayClusterConfig"}[manifest["kind"]]
    if field is None:
        yield "spec", spec
    elif field in spec:
        yield f"spec.{field}", spec[field]


@functools.cache
def crd(kind: str) -> Schema:
    """Read the schema that a CRD has for version v1, and close it against fields that it does not name."""
    text = (CRDS / f"ray.io_{RAY_KINDS[kind]}.yaml").read_text(encoding="utf-8")
    definition = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    (version,) = [each for each in definition["spec"]["versions"] if each["name"] == "v1"]
    schema = version["schema"]["openAPIV3Schema"]
    _close(schema)
    schema["properties"] |= {"apiVersion": {"const": "ray.io/v1"}, "metadata": _schema(SHAPES["Metadata"])}
    return {**schema, "required": ["apiVersion", "kind", "metadata", "spec"]}


def _close(schema: Any) -> None:
    for each in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        _close(each)
    if not isinstance(schema, dict) or schema.get("x-kubernetes-preserve-unknown-fields"):
        return
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        schema.setdefault("additionalProperties", False)


def _schema(shape: Any) -> Schema:
    """Turn a shape of `SHAPES` into a JSON Schema."""
    if isinstance(shape, list):
        return {"type": "array", "items": _schema(shape[0]), "minItems": 1}
    if isinstance(shape, bool):
        return {"const": shape}
    if shape == "number":
        return {"type": "integer", "minimum": 1, "maximum": 65535}
    if isinstance(shape, str):
        return {"type": "string", "pattern": rf"^({shape})$"}
    if "*" in shape:
        names = {"pattern": r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?$"}
        values = _schema(shape["*"])
        return {"type": "object", "propertyNames": names, "additionalProperties": values, "minProperties": 1}
    fields = {name.removesuffix("~"): _schema(value) for name, value in shape.items()}
    required = [name for name in shape if not name.endswith("~")]
    return {"type": "object", "properties": fields, "required": required, "additionalProperties": False}


def _unique(validator: Validator, keys: list[str], items: Any, schema: Schema) -> Iterator[jsonschema.ValidationError]:
    """Apply `x-kubernetes-list-map-keys`: no two environment variables of one name, no two ports of one number."""
    if schema.get("x-kubernetes-list-type") == "map" and isinstance(items, list):
        named = [tuple(str(item.get(key)) for key in keys) for item in items]
        for twice in sorted({name for name in named if named.count(name) > 1}):
            yield jsonschema.ValidationError(f"{', '.join(twice)} is there twice")


_Kubernetes = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"x-kubernetes-list-map-keys": _unique})


def _against(schema: Schema, manifest: Manifest) -> list[str]:
    errors = _Kubernetes(schema).iter_errors(manifest)
    return [f"{error.json_path.removeprefix('$.')}: {error.message}" for error in errors]


def _rules(kind: str, manifest: Manifest) -> Iterator[str]:
    if len(manifest["metadata"]["name"]) > MAX_NAME[kind]:
        yield f"metadata.name: at most {MAX_NAME[kind]} characters"
    for where, cluster in clusters(manifest):
        yield from _cluster_rules(where, cluster)
    spec = manifest["spec"]
    if kind in USED:
        yield from _unread(kind, "spec", spec)
    if kind == "RayJob":
        yield from _job_rules(spec, "clusterSelector" in spec)
    elif spec.get("upgradeStrategy", {}).get("type", "None") not in ("NewCluster", "None"):
        yield "spec.upgradeStrategy.type: NewCluster or None"


def _unread(what: str, where: str, fields: Manifest) -> Iterator[str]:
    yield from (f"{where}.{name}: not in USED" for name in fields.keys() - USED[what].split())


def _job_rules(spec: Manifest, joins: bool) -> Iterator[str]:
    ends = spec.get("shutdownAfterJobFinishes", False)
    if ("rayClusterSpec" in spec) == joins:
        yield "spec: either rayClusterSpec or clusterSelector"
    if spec.get("submissionMode") != "HTTPMode":
        yield "spec.submissionMode: the other modes have rules of their own"
    if spec.get("suspend") and (joins or not ends):
        yield "spec.suspend: needs shutdownAfterJobFinishes, and a cluster of its own"
    if spec.get("ttlSecondsAfterFinished") and not ends:
        yield "spec.ttlSecondsAfterFinished: needs shutdownAfterJobFinishes"
    if spec.get("backoffLimit") and joins:
        yield "spec.backoffLimit: not with clusterSelector"


def _cluster_rules(where: str, spec: Manifest) -> Iterator[str]:
    groups = spec.get("workerGroupSpecs", [])
    scaled = spec.get("enableInTreeAutoscaling") and spec["autoscalerOptions"]["version"] == "v2"
    yield from _unread("cluster", where, spec)
    yield from _unread("authOptions", f"{where}.authOptions", spec.get("authOptions", {}))
    for group in [spec["headGroupSpec"], *groups]:
        yield from _group_rules(f"{where}.{group.get('groupName', 'headGroupSpec')}", group, scaled)
    for group in groups:
        if not group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]:
            yield f"{where}.{group['groupName']}: minReplicas, replicas and maxReplicas are not in this order"
    if len({group["groupName"] for group in groups}) < len(groups):
        yield f"{where}.workerGroupSpecs: two groups have one name"


def _group_rules(where: str, group: Manifest, scaled: bool) -> Iterator[str]:
    pod = group["template"]["spec"]
    yield from _unread("group", where, group)
    yield from _unread("rayStartParams", f"{where}.rayStartParams", group.get("rayStartParams", {}))
    if "labels" in group:
        yield from (f"{where}.labels: {found}" for found in _against(_schema(SHAPES["Labels"]), group["labels"]))
    if "idleTimeoutSeconds" in group and not scaled:
        yield f"{where}.idleTimeoutSeconds: only autoscaler v2 knows it"
    if scaled and pod.get("restartPolicy", "Never") != "Never":
        yield f"{where}.restartPolicy: autoscaler v2 wants Never"
    volumes = {volume["name"] for volume in pod.get("volumes", ())}
    for container in pod["containers"]:
        reserved = RESERVED & {each["name"] for each in container.get("env", ())}
        yield from (f"{where}: {name} is the operator's" for name in reserved)
        mounted = {mount["name"] for mount in container.get("volumeMounts", ())}
        yield from (f"{where}: there is no volume {name!r} to mount" for name in mounted - volumes)
