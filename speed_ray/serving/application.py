"""`speed-ray serve`: a Serve application that lives as long as the command."""

import contextlib
import logging
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve import Application

from speed_ray.errors import Interrupted, UserError
from speed_ray.on_ray import serve_env
from speed_ray.on_ray.session import resources, session
from speed_ray.serving.replica import Embed
from speed_ray.serving.resolve_model import Served

APPLICATION = "speed-ray"
ONGOING = 256  # requests at a replica; more wait at the proxy
QUEUED = 2048  # requests at a proxy; more get a 503
TARGET = 32  # requests in flight for each replica, where their number may change
TIMEOUT = 600  # seconds until a request that waits for a replica gets a 503
TICK = 2.0  # seconds between two looks at the application


@dataclass(frozen=True)
class Replicas:
    """How many there may be, and what each gets."""

    least: int
    most: int
    cpus: float
    gpus: float

    @classmethod
    def read(cls, count: str, cpus: float, gpus: float) -> "Replicas":
        """From `2` or `1..4`. Raises UserError."""
        least, _, most = count.partition("..")
        try:
            read = cls(int(least), int(most or least), cpus, gpus)
        except ValueError:
            raise UserError(f"--replicas {count}: write a number, as 2, or a range, as 1..4.") from None
        if not 1 <= read.least <= read.most:
            raise UserError(f"--replicas {count}: at least one, and the lower number first.")
        if cpus <= 0 or gpus < 0:
            raise UserError(f"--cpus {cpus:g} --gpus {gpus:g}: a replica needs some CPU, and no less than no GPU.")
        return read


def application(served: Served, replicas: Replicas) -> Application:
    """Return the Serve application, as `serve.run` takes it."""
    count = (
        {"num_replicas": replicas.least}
        if replicas.least == replicas.most
        else {
            "autoscaling_config": {
                "min_replicas": replicas.least,
                "max_replicas": replicas.most,
                "target_ongoing_requests": TARGET,
            }
        }
    )
    deployment = serve.deployment(
        Embed,
        name="embed",
        ray_actor_options={"num_cpus": replicas.cpus, "num_gpus": replicas.gpus},
        max_ongoing_requests=ONGOING,
        max_queued_requests=QUEUED,
        max_constructor_retry_count=2,
        health_check_period_s=5,
        **count,
    )
    return deployment.bind(served.fetch, served.name, max(1, int(replicas.cpus)))


def run_server(served: Served, replicas: Replicas, host: str, port: int) -> None:
    """Serve until Ctrl-C or SIGTERM, which end the application and, where it was started here, Ray."""
    if not os.environ.get("RAY_ADDRESS"):
        _check_free(host, port)
    print("speed-ray: starting Ray Serve", file=sys.stderr, flush=True)
    with _haproxy(), session():
        _check_resources(replicas)
        print(f"speed-ray: loading {served.name}", file=sys.stderr, flush=True)
        _start(host, port)
        try:
            _deploy(application(served, replicas))
            print(f"{served.name} is served at http://{host}:{port}/v1/embeddings. Ctrl-C ends it.", flush=True)
            _watch()
        except KeyboardInterrupt:
            print("speed-ray: ending", file=sys.stderr)
        finally:
            serve.delete(APPLICATION)


@contextlib.contextmanager
def _haproxy() -> Iterator[None]:
    """Have a Ray that is started here serve behind HAProxy. One that is there has what its nodes began with."""
    if os.environ.get("RAY_ADDRESS"):
        yield
        return
    # In /tmp, because a socket's path has 97 bytes at most.
    with tempfile.TemporaryDirectory(prefix="sr-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        os.environ.update(serve_env.environment() | serve_env.ports() | serve_env.places(Path(folder)))
        yield


def _start(host: str, port: int) -> None:
    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # it tells of its own steps
    try:
        serve.start(
            proxy_location="EveryNode",
            http_options={"host": host, "port": port, "request_timeout_s": TIMEOUT},
            logging_config={"log_level": "WARNING", "enable_access_log": False},
            controller_options={"runtime_env": {"env_vars": serve_env.CALLBACK}},
        )
    except (RayError, TimeoutError) as error:
        raise Interrupted(f"Ray Serve did not start: {str(error).strip().splitlines()[-1]}") from error


def _deploy(app: Application) -> None:
    quiet = {"log_level": "WARNING", "enable_access_log": False}
    try:
        serve.run(app, name=APPLICATION, route_prefix="/", logging_config=quiet)
    except RuntimeError as error:
        raise UserError(f"The model could not be served: {error}") from None


def _watch() -> None:
    while True:
        time.sleep(TICK)
        state = serve.status().applications.get(APPLICATION)
        if state is None:
            raise Interrupted("somebody deleted the application: nothing is served any more.")
        if state.status == "DEPLOY_FAILED":
            raise Interrupted(f"nothing is served any more: {state.message}")


def _check_resources(replicas: Replicas) -> None:
    """A cluster may grow; a Ray that was started here does not, and would wait for ever without a word."""
    have = ray.cluster_resources()
    wanted = {"CPU": replicas.cpus * replicas.least, "GPU": replicas.gpus * replicas.least}
    if any(have.get(kind, 0) < number for kind, number in wanted.items()):
        needs = ", ".join(f"{kind} {number:g}" for kind, number in wanted.items() if number)
        what = f"--replicas {replicas.least} needs {needs}; there is {resources()}"
        if not os.environ.get("RAY_ADDRESS"):
            raise UserError(f"{what}.\nAsk for less by --replicas, --cpus and --gpus.")
        print(f"speed-ray: {what}. Waiting for the cluster to grow.", file=sys.stderr, flush=True)


def _check_free(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(f"--host {host} --port {port}: {error.strerror}. Choose another.") from None
