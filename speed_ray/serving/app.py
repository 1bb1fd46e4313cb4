"""Serve an embedder on Ray Serve: as `speed-ray serve`, or as the application that a Serve config names.

A Serve config, as KubeRay's RayService has one, takes `import_path: speed_ray.serving.app:build_app`.
"""

import contextlib
import logging
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from pydantic import AfterValidator, NonNegativeFloat, PositiveFloat, ValidationError
from ray import serve
from ray.exceptions import RayError
from ray.serve import Application

from speed_ray.engines.embedder_folder import check_embedder_folder
from speed_ray.engines.packaged_models import PACKAGE, find_packaged_model
from speed_ray.errors import Interrupted, UserError
from speed_ray.on_ray import serve_env
from speed_ray.on_ray.capacity import ResourceNeed, check_capacity
from speed_ray.on_ray.session import session, uses_shared_cluster
from speed_ray.recipes.setting import Strict
from speed_ray.recipes.training_settings import Workers
from speed_ray.serving.replica import Embed
from speed_ray.storage.rounds import best_embedder
from speed_ray.storage.run import Run
from speed_ray.storage.trained_models import EMBEDDER

APPLICATION = "speed-ray"
MAX_ONGOING = 256  # requests at a replica; more wait at the proxy
MAX_QUEUED = 2048  # requests at a proxy; more get a 503
TARGET_ONGOING = 32  # requests in flight for each replica, where the number of replicas may change
REQUEST_SECONDS = 600  # until a request that waits for a replica gets a 503
POLL_SECONDS = 2.0
QUIET = {"log_level": "WARNING", "enable_access_log": False}


def _known_range(replicas: str) -> str:
    fewest, _, most = replicas.partition("..")
    if not re.fullmatch(r"[0-9]{1,6}(\.\.[0-9]{1,6})?", replicas) or not 1 <= int(fewest) <= int(most or fewest):
        raise ValueError("write a number, as 2, or a range, as 1..4")
    return replicas


class ServeArguments(Strict):
    """Holds the options of `speed-ray serve`, under the names that a Serve config's `args` have for them."""

    model: str  # a run, a sentence-transformers folder, package://minilm, or a name of the Hugging Face Hub
    name: str | None = None  # what clients call the model
    replicas: Annotated[str, AfterValidator(_known_range)] = "1"  # or a range, as 1..4
    cpus: PositiveFloat = 1.0  # each, and threads
    gpus: NonNegativeFloat = 0.0  # each

    @property
    def replica_range(self) -> tuple[int, int]:
        """Return the fewest and the most replicas."""
        fewest, _, most = self.replicas.partition("..")
        return int(fewest), int(most or fewest)


def read_arguments(**options: Any) -> ServeArguments:
    """Check the command's options. Raises UserError."""
    try:
        return ServeArguments(**options)
    except ValidationError as error:
        first = error.errors()[0]
        said = first["msg"].removeprefix("Value error, ")
        raise UserError(f"--{first['loc'][0]} {first['input']}: {said}.") from None


@dataclass(frozen=True)
class ModelSource:
    """Names a model; `fetch` returns its local folder, or its name of the Hub, on the node where it is called."""

    name: str
    fetch: Callable[[], str]


def build_app(arguments: ServeArguments) -> Application:
    """Return the Serve application of a model. Raises UserError, which a Serve config's status shows."""
    return _application(resolve_source(arguments.model, arguments.name), arguments)


def _application(source: ModelSource, arguments: ServeArguments) -> Application:
    fewest, most = arguments.replica_range
    scaling: dict[str, Any] = {"num_replicas": fewest}
    if fewest < most:
        limits = {"min_replicas": fewest, "max_replicas": most, "target_ongoing_requests": TARGET_ONGOING}
        scaling = {"autoscaling_config": limits}
    deployment = serve.deployment(
        Embed,
        name="embed",
        ray_actor_options={"num_cpus": arguments.cpus, "num_gpus": arguments.gpus},
        max_ongoing_requests=MAX_ONGOING,
        max_queued_requests=MAX_QUEUED,
        max_constructor_retry_count=2,
        health_check_period_s=5,
        **scaling,
    )
    return deployment.bind(source.fetch, source.name, max(1, int(arguments.cpus)))


def resolve_source(model: str, name: str | None = None) -> ModelSource:
    """Tell a run, a packaged model, a folder and a name of the Hub apart. Raises UserError where nothing is there."""
    if model.startswith(PACKAGE):
        check_embedder_folder(find_packaged_model(model, "MODEL"), "MODEL")
        return ModelSource(name or model.removeprefix(PACKAGE), lambda: str(find_packaged_model(model, "MODEL")))
    folder = Path(model)
    if (folder / "modules.json").is_file():
        check_embedder_folder(folder, "MODEL")
        path = str(folder.resolve())
        return ModelSource(name or folder.resolve().name, lambda: path)
    if folder.is_dir() and not (folder / "recipe.yaml").is_file():
        raise UserError(
            f"{model} is neither a run (it has no recipe.yaml) nor a sentence-transformers model (it has no "
            "modules.json).\nName one of the two, or a model of the Hugging Face Hub."
        )
    if folder.is_dir() or "://" in model:
        trained = best_embedder(Run(str(folder.resolve()) if folder.is_dir() else model))
        trained.published()
        return ModelSource(name or EMBEDDER, lambda: str(trained.fetch()))
    if folder.is_absolute() or model.startswith("."):
        raise UserError(f"{model}: there is no such folder.")
    try:
        hf_hub_download(model, "modules.json")
    except (HFValidationError, HfHubHTTPError, OSError) as error:
        raise UserError(
            f"{model} is no folder here, and as a sentence-transformers model of the Hugging Face Hub it was not "
            f"found:\n{str(error).strip().splitlines()[0]}"
        ) from None
    return ModelSource(name or model, lambda: model)


def run_server(arguments: ServeArguments, host: str, port: int) -> None:
    """Serve until Ctrl-C or SIGTERM, which end the application and, where it was started here, Ray."""
    if not uses_shared_cluster():
        serve_env.check_port_free(f"--host {host} --port", host, port)
    source = resolve_source(arguments.model, arguments.name)
    app = _application(source, arguments)
    print("speed-ray: starting Ray Serve", file=sys.stderr, flush=True)
    with _haproxy_environment(), session():
        replica = Workers(num_cpus=arguments.cpus, num_gpus=arguments.gpus)
        check_capacity(ResourceNeed("--replicas", replica, arguments.replica_range[0]))
        print(f"speed-ray: loading {source.name}", file=sys.stderr, flush=True)
        _start_serve(host, port)
        try:
            try:
                serve.run(app, name=APPLICATION, route_prefix="/", logging_config=QUIET)
            except RuntimeError as error:
                raise UserError(f"The model could not be served: {_failure_reason() or error}") from None
            print(f"{source.name} is served at http://{host}:{port}/v1/embeddings. Ctrl-C ends it.", flush=True)
            _watch_application()
        except KeyboardInterrupt:
            print("speed-ray: ending", file=sys.stderr)
        finally:
            serve.delete(APPLICATION)


@contextlib.contextmanager
def _haproxy_environment() -> Iterator[None]:
    """Have a Ray that is started here serve behind HAProxy. One that is there has what its nodes began with."""
    if uses_shared_cluster():
        yield
        return
    # In /tmp, because a socket's path has 97 bytes at most.
    with tempfile.TemporaryDirectory(prefix="sr-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        os.environ.update(serve_env.environment() | serve_env.ports() | serve_env.files(Path(folder)))
        yield


def _start_serve(host: str, port: int) -> None:
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    try:
        serve.start(
            proxy_location="EveryNode",
            http_options={"host": host, "port": port, "request_timeout_s": REQUEST_SECONDS},
            logging_config=QUIET,
            controller_options={"runtime_env": {"env_vars": serve_env.CALLBACK}},
        )
    except (RayError, TimeoutError) as error:
        raise Interrupted(f"Ray Serve did not start: {str(error).strip().splitlines()[-1]}") from error


def _failure_reason() -> str:
    """Return what the replica's constructor raised, "" where Ray Serve does not know it."""
    application = serve.status().applications.get(APPLICATION)
    messages = [deployment.message for deployment in application.deployments.values()] if application else []
    return last_error("\n".join(messages))


def last_error(report: str) -> str:
    """Return the message of the last exception whose traceback is in a text, the last line where there is none."""
    before, *messages = re.split(r"(?m)^[\w.]*(?:Error|Exception|Interrupted): ", report.strip())
    return messages[-1].strip() if messages else before.rpartition("\n")[2]


def _watch_application() -> None:
    """Return never: raise Interrupted once the application is deleted, or fails for good."""
    while True:
        time.sleep(POLL_SECONDS)
        state = serve.status().applications.get(APPLICATION)
        if state is None:
            raise Interrupted("somebody deleted the application: nothing is served any more.")
        if state.status == "DEPLOY_FAILED":
            raise Interrupted(f"nothing is served any more: {state.message}")
