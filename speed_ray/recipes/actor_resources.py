"""Define what one engine or worker takes of a cluster."""

from pydantic import NonNegativeFloat, PositiveFloat

from speed_ray.recipes.setting import Strict


class Resources(Strict):
    """Sets what each actor takes, and how long one may be waited for. Never part of a row's or model's identity."""

    num_cpus: NonNegativeFloat = 1.0  # of each
    num_gpus: NonNegativeFloat = 0.0  # of each
    accelerator_type: str | None = None  # a GPU type as Ray names it: "H100"
    label_selector: dict[str, str] = {}  # of the nodes that actors may run on, as Ray knows them
    watchdog_minutes: PositiveFloat = 30.0  # without a commit, or a worker at work, a job ends with a diagnosis
