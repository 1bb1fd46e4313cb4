"""What a Serve config names as `import_path`, as KubeRay's RayService does: `speed_ray.serving.builder:build_app`."""

import dataclasses

from ray.serve import Application

from speed_ray.recipes.schema import Strict
from speed_ray.serving.application import Replicas, application
from speed_ray.serving.resolve_model import resolve_served_model


class Arguments(Strict):
    """The config's `args`, under the names that `speed-ray serve` has for them."""

    model: str
    name: str | None = None
    replicas: str = "1"
    cpus: float = 1.0
    gpus: float = 0.0


def build_app(arguments: Arguments) -> Application:
    """Return the application that `speed-ray serve` would run. Raises UserError, which the service's status shows."""
    served = resolve_served_model(arguments.model)
    served = served if arguments.name is None else dataclasses.replace(served, name=arguments.name)
    return application(served, Replicas.read(arguments.replicas, arguments.cpus, arguments.gpus))
