"""Look at a cluster without giving it work: its nodes, their packages, and whether a recipe's actors have room."""

from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from speed_ray.on_ray.capacity import JOIN_SECONDS, ResourceNeed, package_versions
from speed_ray.on_ray.session import resources, session


@dataclass(frozen=True)
class Survey:
    """Holds what was seen of a cluster."""

    nodes: list[str]
    resources: str  # "CPU 8 free of 8"
    differing: dict[str, str]  # of each node that has other packages than this machine: which
    lacking: list[ResourceNeed]


def survey_cluster(needs: list[ResourceNeed]) -> Survey:
    """Ask every node of the cluster that RAY_ADDRESS names for its packages. Raises Interrupted."""
    with session():
        alive = [node for node in ray.nodes() if node["Alive"]]
        lacking = [
            need for need in needs if sum(need.fits(node["Resources"], node["Labels"]) for node in alive) < need.count
        ]
        addresses = [node["NodeManagerAddress"] for node in alive]
        return Survey(addresses, resources(), _differing(alive), lacking)


def _differing(alive: list[dict[str, Any]]) -> dict[str, str]:
    """Return what differs on each node, in words."""
    ask, ours = ray.remote(num_cpus=0)(package_versions), package_versions()
    asked = {
        ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(): node
        for node in alive
    }
    ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=JOIN_SECONDS)
    found = {}
    for reference in asked:
        address = asked[reference]["NodeManagerAddress"]
        try:
            theirs = ray.get(reference) if reference in ready else {}
        except RayError as error:  # it has no speed_ray, say
            found[address] = str(error).strip().splitlines()[-1]
            continue
        others = [
            f"{name} {version} (here {ours.get(name)})"
            for name, version in theirs.items()
            if ours.get(name) != version
        ]
        if reference not in ready or others:
            found[address] = ", ".join(others) or f"it did not answer within {JOIN_SECONDS:g} s"
    return found
