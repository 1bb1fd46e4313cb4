"""Find whether the cluster that jobs would join is there, holds what a recipe asks for, and has our packages."""

import os
import re
import socket
from collections.abc import Iterator, Sequence

from speed_ray.doctor.finding import Finding
from speed_ray.doctor.wanted_places import WantedPlace

CONNECT_SECONDS = 5.0
ADDRESS = re.compile(r"(?:ray://)?([^:/]+):(\d+)")


def check_cluster(places: Sequence[WantedPlace]) -> Iterator[Finding]:
    """Look at the cluster that RAY_ADDRESS names; without one a job starts a Ray of its own."""
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        yield Finding("cluster", "ok", "RAY_ADDRESS names none: a job starts a Ray of its own on this machine")
        return
    if fault := _unreachable(address):
        advice = "Start it with `speed-ray head`, correct RAY_ADDRESS, or unset it to run on this machine."
        yield Finding("cluster", "fail", f"nobody answers at {address} (RAY_ADDRESS): {fault}", advice)
        return
    from speed_ray.on_ray import survey  # imports Ray

    found = survey.survey_cluster([survey.ResourceNeed(*place) for place in places])
    yield Finding("cluster", "ok", f"{len(found.nodes)} nodes at {address}: {found.resources}")
    for node, differing in found.differing.items():
        advice = "Install the same list of requirements/ on every node, or start all from one image."
        yield Finding("cluster", "fail", f"node {node} has other packages: {differing}", advice)
    for need in found.lacking:
        advice = f"Add such nodes, let an autoscaler add them, or lower {need.key}."
        yield Finding("cluster", "warn", f"no room for {need.count} x {need} ({need.key})", advice)


def _unreachable(address: str) -> str:
    """Return why nobody can be reached at an address, "" where somebody is, or where Ray alone can tell."""
    found = ADDRESS.fullmatch(address)
    if found is None:
        return ""  # "auto", say
    try:
        socket.create_connection((found[1], int(found[2])), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        return str(error)
    return ""
