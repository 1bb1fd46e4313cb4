"""The manifests of cluster/kuberay are what KubeRay 1.7.0 and Kubernetes take, and what these tests say of them."""

import json
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import jsonpatch
import pytest
import typer
import yaml
from packaging.requirements import Requirement
from typer.exceptions import TyperException

from speed_ray import __version__, cli, pipeline, recipes
from speed_ray.errors import UserError
from speed_ray.on_ray import serve_env
from speed_ray.recipes.schema import Recipe
from tests.helpers import kuberay
from tests.helpers.kubectl import Manifest, read, render
from tests.helpers.kuberay import clusters, pods, problems
from tests.helpers.paths import ROOT

KUBERAY = ROOT / "cluster" / "kuberay"
STORAGES = [f"overlays/{name}" for name in ("volume", "s3", "gcs")]
CLUSTERS = ["run", "gang", "service"]  # each makes one of its own
JOBS = [f"jobs/{path.name}" for path in sorted((KUBERAY / "jobs").glob("*.yaml"))]
DRAIN = 30  # seconds that Ray 2.60 takes at most: RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S
LOADING = 600  # seconds, generously, in which an engine loads an 8B model
ROOT_CA = "kube-root-ca.crt"  # Kubernetes puts this ConfigMap into every namespace

needs_crds = pytest.mark.skipif(
    not kuberay.CRDS.is_dir(), reason="the operator's CRDs lie in ../shared/kuberay-crds, which is not here"
)


def manifests(what: str) -> list[Manifest]:
    """A rendered folder, or the documents of one file."""
    return render(KUBERAY / what) if (KUBERAY / what).is_dir() else read(KUBERAY / what)


def one(kind: str) -> Manifest:
    """One manifest of a kind, to do harm to."""
    where = {"RayJob": "run", "RayService": "service", "Secret": "secrets.example.yaml"}.get(kind, "overlays/volume")
    return next(each for each in manifests(where) if each["kind"] == kind)


def ray(what: str) -> list[Manifest]:
    return [each for each in manifests(what) if each["kind"] in kuberay.RAY_KINDS]


@needs_crds
@pytest.mark.parametrize("what", [*STORAGES, *CLUSTERS, *JOBS, "secrets.example.yaml"])
def test_every_manifest_would_be_taken(what: str) -> None:
    found = {f"{each['kind']} {each['metadata']['name']}": problems(each) for each in manifests(what)}
    assert found and not any(found.values()), found


@pytest.mark.parametrize("what", ["overlays/volume", *CLUSTERS])
def test_every_node_serves_as_speed_ray_does(what: str) -> None:
    program = "/opt/speed_ray/.venv/bin/speed-ray-haproxy"  # where the images have it
    expected = serve_env.environment() | {"RAY_SERVE_HAPROXY_BINARY_PATH": program}
    nodes = [pod["spec"]["containers"][0] for manifest in ray(what) for _, pod in pods(manifest)]
    assert nodes
    for node in nodes:
        given = {each["name"]: each.get("value") for each in node["env"]}
        assert {name: given.get(name) for name in expected} == expected


@needs_crds
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("what", CLUSTERS)
def test_a_cluster_of_its_own_takes_any_storage(what: str, storage: str, tmp_path: Path) -> None:
    folder = shutil.copytree(KUBERAY, tmp_path / "kuberay") / what
    text = (folder / "kustomization.yaml").read_text(encoding="utf-8")
    assert "../overlays/volume" in text, "as docs/cluster.md says"
    (folder / "kustomization.yaml").write_text(text.replace("../overlays/volume", f"../{storage}"), encoding="utf-8")
    rendered = render(folder)
    assert not any(problems(each) for each in rendered)
    assert set(_references(rendered)) <= _there(rendered)


@needs_crds
@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("RayCluster", "enableInTreeAutoscaling"),
        ("RayCluster", "workerGroupSpecs/1/maxReplicas"),
        ("RayCluster", "workerGroupSpecs/1/template/metadata/labels"),
        ("RayCluster", "headGroupSpec/template/spec/containers/0/resources/limits"),
        ("RayCluster", "headGroupSpec/template/spec/affinity/nodeAffinity"),
        ("RayJob", "backoffLimit"),
        ("RayJob", "rayClusterSpec/workerGroupSpecs/0/template/spec/containers/0/envFrom/0/secretRef/name"),
        ("RayService", "serveConfigV2"),
        ("RayService", "rayClusterConfig/authOptions/secretName"),
        ("NetworkPolicy", "podSelector"),
        ("NetworkPolicy", "policyTypes"),
        ("PodDisruptionBudget", "minAvailable"),
        ("PersistentVolumeClaim", "resources/requests/storage"),
    ],
)
def test_a_planted_typo_is_caught(kind: str, key: str) -> None:
    manifest = one(kind)
    assert not problems(manifest)
    jsonpatch.apply_patch(manifest, [{"op": "move", "from": f"/spec/{key}", "path": f"/spec/{key}s"}], in_place=True)
    assert problems(manifest)


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("ServiceAccount", "automountServiceAccountToken"),
        ("ServiceAccount", "apiVersion"),
        ("Namespace", "metadata/labels"),
        ("Secret", "stringData"),
    ],
)
def test_a_planted_typo_outside_of_a_spec_is_caught(kind: str, key: str) -> None:
    manifest = one(kind)
    assert not problems(manifest)
    jsonpatch.apply_patch(manifest, [{"op": "move", "from": f"/{key}", "path": f"/{key}s"}], in_place=True)
    assert problems(manifest)


@pytest.mark.parametrize("field", ["resource", "patch", "replacement"])
def test_a_planted_typo_in_a_kustomization_is_caught(field: str, tmp_path: Path) -> None:
    folder = shutil.copytree(KUBERAY, tmp_path / "kuberay") / "run"
    text = (folder / "kustomization.yaml").read_text(encoding="utf-8")
    (folder / "kustomization.yaml").write_text(re.sub(rf"^{field}e?s:", f"{field}:", text, flags=re.M))
    with pytest.raises(subprocess.CalledProcessError):
        render(folder)


HEAD, GROUP = "/spec/headGroupSpec", "/spec/workerGroupSpecs/0"
ENV = f"{HEAD}/template/spec/containers/0/env"
CALLBACK = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"  # a variable that the head has
BROKEN = {
    "idleTimeoutSeconds: only autoscaler v2": ("RayCluster", "replace", "/spec/autoscalerOptions/version", "v1"),
    "idleTimeoutSeconds: only": ("RayCluster", "replace", "/spec/enableInTreeAutoscaling", False),
    "autoscaler v2 wants Never": ("RayCluster", "replace", f"{GROUP}/template/spec/restartPolicy", "Always"),
    "spec.networkPolicy: not in USED": ("RayCluster", "add", "/spec/networkPolicy", {"mode": "DenyAll"}),
    "in this order": ("RayCluster", "replace", f"{GROUP}/minReplicas", 9),
    "two groups have one name": ("RayCluster", "replace", f"{GROUP}/groupName", "training"),
    "headGroupSpec.resources: not in USED": ("RayCluster", "add", f"{HEAD}/resources", {"CPU": "0"}),
    "rayStartParams.labels: not in USED": ("RayCluster", "add", f"{GROUP}/rayStartParams/labels", "a=b"),
    "'no label' does not match": ("RayCluster", "add", f"{GROUP}/labels/speed-ray~1group", "no label"),
    "there is no volume": ("RayCluster", "remove", f"{GROUP}/template/spec/volumes/0", None),
    "is there twice": ("RayCluster", "add", f"{ENV}/-", {"name": CALLBACK, "value": "other"}),
    "RAY_REDIS_ADDRESS is the operator's": ("RayCluster", "add", f"{ENV}/-", {"name": "RAY_REDIS_ADDRESS"}),
    "at most 53": ("RayCluster", "replace", "/metadata/name", "a" * 54),
    "at most 47": ("RayJob", "replace", "/metadata/name", "a" * 48),
    "either rayClusterSpec": ("RayJob", "add", "/spec/clusterSelector", {"ray.io/cluster": "speed-ray"}),
    "suspend: needs": ("RayJob", "add", "/spec/clusterSelector", {"ray.io/cluster": "speed-ray"}),
    "backoffLimit: not with": ("RayJob", "add", "/spec/clusterSelector", {"ray.io/cluster": "speed-ray"}),
    "the other modes": ("RayJob", "replace", "/spec/submissionMode", "SidecarMode"),
    "ttlSecondsAfterFinished: needs": ("RayJob", "replace", "/spec/shutdownAfterJobFinishes", False),
    "spec.activeDeadlineSeconds: not in USED": ("RayJob", "add", "/spec/activeDeadlineSeconds", 0),
    "enableK8sTokenAuth: not in USED": ("RayJob", "add", "/spec/rayClusterSpec/authOptions/enableK8sTokenAuth", True),
    "upgradeStrategy.type": ("RayService", "replace", "/spec/upgradeStrategy/type", "Canary"),
}


@needs_crds
@pytest.mark.parametrize("said", BROKEN)
def test_the_operators_rules_are_kept(said: str) -> None:
    kind, op, path, value = BROKEN[said]
    manifest = one(kind)
    if kind == "RayJob":
        manifest["spec"]["suspend"] = said.startswith("suspend")
    assert not problems(manifest)
    jsonpatch.apply_patch(manifest, [{"op": op, "path": path, "value": value}], in_place=True)
    assert any(said in problem for problem in problems(manifest)), problems(manifest)


def test_every_file_is_part_of_something() -> None:
    named = {KUBERAY / what for what in JOBS} | {KUBERAY / "secrets.example.yaml"}
    for path in KUBERAY.rglob("kustomization.yaml"):
        (kustomization,) = read(path)
        parts = [*kustomization["resources"], *(patch.get("path", ".") for patch in kustomization.get("patches", ()))]
        named |= {path, *((path.parent / part).resolve() for part in parts)}
    assert set(KUBERAY.rglob("*.yaml")) <= named


@pytest.mark.parametrize("what", [*STORAGES, *CLUSTERS])
def test_all_that_is_referred_to_is_there_or_made_by_the_user(what: str) -> None:
    rendered = manifests(what)
    assert set(_references(rendered)) <= _there(rendered)


@pytest.mark.parametrize("kind", ["ServiceAccount", "PersistentVolumeClaim", "Secret"])
def test_a_reference_to_nothing_is_found(kind: str) -> None:
    rendered = manifests("overlays/volume")
    there = {(each, name) for each, name in _there(rendered) if each != kind}
    assert {each for each, _ in set(_references(rendered)) - there} == {kind}


@pytest.mark.parametrize("page", ["README.md", "docs/cluster.md"])
def test_what_the_pages_name_is_there(page: str) -> None:
    named = set(re.findall(r"\bcluster/[\w./-]+\w", (ROOT / page).read_text(encoding="utf-8")))
    assert named and all((ROOT / each).exists() for each in named), named


def test_no_secret_has_a_value() -> None:
    files = [each for path in KUBERAY.rglob("*.yaml") for each in read(path) if isinstance(each, dict)]
    secrets = [each for each in files if each.get("kind") == "Secret"]
    assert len(secrets) == len(read(KUBERAY / "secrets.example.yaml"))
    for secret in secrets:
        assert "data" not in secret
        assert all(re.fullmatch("<.+>", value) for value in secret["stringData"].values()), secret["metadata"]


@pytest.mark.parametrize("what", [*STORAGES, *CLUSTERS])
def test_pods_are_locked_down_and_have_time_to_end(what: str) -> None:
    for where, pod in (found for manifest in ray(what) for found in pods(manifest)):
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False, where
        assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] > 0, where
        assert spec["terminationGracePeriodSeconds"] > 2 * DRAIN, where
        assert spec["restartPolicy"] == "Never", where
        for container in spec["containers"]:
            locked = container["securityContext"]
            assert not locked["allowPrivilegeEscalation"] and locked["capabilities"] == {"drop": ["ALL"]}, where
            assert container["resources"]["requests"] == container["resources"]["limits"], where


@pytest.mark.parametrize("what", [*STORAGES, *CLUSTERS])
def test_only_the_autoscaler_gets_a_token_of_the_kubernetes_api(what: str) -> None:
    for manifest in ray(what):
        for where, pod in pods(manifest):
            tokens = {each["name"] for each in pod["spec"]["volumes"] if "projected" in each}
            mounted = {mount["name"] for each in pod["spec"]["containers"] for mount in each["volumeMounts"]}
            assert not tokens & mounted, where
            assert not tokens or where.endswith("headGroupSpec"), where


@pytest.mark.parametrize("what", [*STORAGES, "run", "service"])
def test_the_cluster_grows_from_a_head_without_work(what: str) -> None:
    for manifest in ray(what):
        ((_, spec),) = clusters(manifest)
        assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        assert spec["enableInTreeAutoscaling"] and spec["autoscalerOptions"]["version"] == "v2"
        groups = {group["groupName"]: group for group in spec["workerGroupSpecs"]}
        assert {group["minReplicas"] for group in groups.values()} == {0}
        for group in groups.values():
            engine = "nvidia.com/gpu" in group["template"]["spec"]["containers"][0]["resources"]["limits"]
            assert group["idleTimeoutSeconds"] > (LOADING if engine else 0)
        assert groups["synthesis-spot"]["priority"] > groups["synthesis-on-demand"]["priority"]
        assert {name: group["labels"]["speed-ray/group"] for name, group in groups.items()} == {
            "cpu": "synthesis",
            "synthesis-spot": "synthesis",
            "synthesis-on-demand": "synthesis",
            "training": "training",
        }


def test_training_starts_whole_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "from a Secret")
    (job,) = ray("gang")
    (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert job["spec"]["suspend"] and "kueue.x-k8s.io/queue-name" in job["metadata"]["labels"]
    assert group["groupName"] == "training" and not job["spec"]["rayClusterSpec"]["enableInTreeAutoscaling"]
    asked = _recipe(job).embedder
    assert asked and group["minReplicas"] == group["replicas"] == group["maxReplicas"] == asked.workers.num_workers


@pytest.mark.parametrize("what", [*STORAGES, *CLUSTERS])
def test_network_policies_and_budgets_select_our_pods(what: str) -> None:
    ours = {"app.kubernetes.io/part-of": "speed-ray"}
    for manifest in ray(what):
        for where, pod in pods(manifest):
            assert pod["metadata"]["labels"] == ours, where
    for manifest in manifests(what):
        spec = manifest.get("spec", {})
        selected = spec.get("podSelector") or spec.get("selector")
        if (
            manifest["kind"] in ("NetworkPolicy", "PodDisruptionBudget")
            and manifest["metadata"]["name"] != "default-deny"
        ):
            assert ours.items() <= selected["matchLabels"].items(), manifest["metadata"]["name"]


def test_nothing_is_allowed_by_default() -> None:
    for what in (*STORAGES, *CLUSTERS):
        policies = {
            each["metadata"]["name"]: each["spec"] for each in manifests(what) if each["kind"] == "NetworkPolicy"
        }
        assert policies["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


@pytest.mark.parametrize("what", [*CLUSTERS, *JOBS])
def test_manifests_name_one_version_of_ray_and_of_ours(what: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (declared,) = [each for each in map(Requirement, project["dependencies"]) if each.name == "ray"]
    (pin,) = [each.version for each in declared.specifier]
    for machine in ("cpu", "gpu"):
        pinned = (ROOT / "requirements" / f"{machine}.txt").read_text(encoding="utf-8")
        assert re.findall(r"^ray==(.+)$", pinned, re.M) == [pin]
    for manifest in ray(what):
        for where, spec in clusters(manifest):
            assert spec["rayVersion"] == pin, where
        for where, pod in pods(manifest):
            (container,) = pod["spec"]["containers"]
            machine = "gpu" if "nvidia.com/gpu" in container["resources"]["limits"] else "cpu"
            assert container["image"] == f"speed-ray-{machine}:{__version__}", where


@pytest.mark.parametrize("what", [*JOBS, "run", "gang"])
def test_an_entrypoint_is_a_job_that_the_command_line_takes(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "from a Secret")
    (job,) = ray(what)
    assert _recipe(job)
    command, *_ = _entrypoint(job)
    stem = what.removeprefix("jobs/rayjob-").removesuffix(".yaml")
    assert command == {"run": "run", "gang": "train-embedder"}.get(what, stem)


def test_every_job_has_a_manifest() -> None:
    commands = {_entrypoint(*ray(what))[0].replace("-", "_") for what in [*JOBS, "run"]}
    assert commands == {*pipeline.JOBS, "run"}


@pytest.mark.parametrize("option", ["--recipes miniature", "--set synthesize.example=4", "--until curat"])
def test_an_entrypoint_that_the_command_line_refuses_is_found(option: str) -> None:
    (job,) = ray("run")
    job["spec"]["entrypoint"] += f" {option}"
    with pytest.raises((UserError, TyperException)):
        _recipe(job)


def test_jobs_on_the_standing_cluster_name_it() -> None:
    (standing,) = ray("overlays/volume")
    for what in JOBS:
        (job,) = ray(what)
        assert job["spec"]["clusterSelector"] == {"ray.io/cluster": standing["metadata"]["name"]}
        assert job["metadata"]["namespace"] == standing["metadata"]["namespace"]


def test_the_service_is_an_application_that_serve_builds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from ray.serve.schema import ServeDeploySchema

    from speed_ray.serving import app

    (service,) = ray("service")
    config = ServeDeploySchema.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"]))
    (application,) = config.applications
    assert application.import_path == f"{app.__name__}:{app.build_app.__name__}"
    arguments = app.ServeArguments.model_validate(application.args)
    module = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Normalize"}
    (tmp_path / "modules.json").write_text(json.dumps([module]))
    built = app.build_app(arguments.model_copy(update={"model": str(tmp_path)}))
    assert built._bound_deployment._deployment_config.autoscaling_config.max_replicas == 4


def _entrypoint(job: Manifest) -> list[str]:
    program, *arguments = shlex.split(job["spec"]["entrypoint"])
    assert program == "speed-ray", "on the PATH of the images"
    return arguments


def _recipe(job: Manifest) -> Recipe:
    """The recipe of an entrypoint, read as the job would read it."""
    command, *options = _entrypoint(job)
    group = typer.main.get_command(cli.app)
    context = group.commands[command].make_context(command, options)
    recipe = recipes.load_recipe(context.params["recipe"], context.params["set_"] or ())
    if context.params.get("until"):
        pipeline.up_to(context.params["until"].replace("-", "_"), recipe)
    return recipe


def _references(rendered: list[Manifest]) -> Iterator[tuple[str, str]]:
    """Kind and name of all that the Pods of some manifests refer to."""
    for manifest in rendered:
        if manifest["kind"] not in kuberay.RAY_KINDS:
            continue
        for _, spec in clusters(manifest):
            yield "Secret", spec["authOptions"]["secretName"]
        for _, pod in pods(manifest):
            yield "ServiceAccount", pod["spec"]["serviceAccountName"]
            for volume in pod["spec"]["volumes"]:
                for source in volume.get("projected", {}).get("sources", ()):
                    if "configMap" in source:
                        yield "ConfigMap", source["configMap"]["name"]
                if "persistentVolumeClaim" in volume:
                    yield "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]
            for container in pod["spec"]["containers"]:
                for source in container["envFrom"]:
                    yield "Secret", source["secretRef"]["name"]


def _there(rendered: list[Manifest]) -> set[tuple[str, str]]:
    """Kind and name of all that is applied, that the user is told to make, or that Kubernetes makes."""
    known = [*rendered, *read(KUBERAY / "secrets.example.yaml")]
    return {(each["kind"], each["metadata"]["name"]) for each in known} | {("ConfigMap", ROOT_CA)}
