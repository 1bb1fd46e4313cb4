"""List what a recipe's pools and workers ask of a machine or a cluster."""

from collections.abc import Iterator
from typing import NamedTuple

from pydantic import BaseModel

from speed_ray.recipes.actor_resources import Resources
from speed_ray.recipes.schema import Recipe
from speed_ray.recipes.stage_settings import Pool
from speed_ray.recipes.training_settings import TrainingWorkers

STAGES_OF = {  # the stages that a role's engines answer in
    "teacher": ("brainstorm", "draft", "judge", "critique"),
    "generator": ("synthesize", "propose", "revise"),
}


class WantedPlace(NamedTuple):
    """Holds what one pool or one training asks for at once: `actors` that take so much each."""

    key: str  # "synthesize.pool"
    takes: Resources
    actors: int

    @property
    def gpus(self) -> float:
        """Return the GPUs of all its actors."""
        return self.takes.num_gpus * self.actors


def places_of(recipe: BaseModel, above: str = "") -> Iterator[WantedPlace]:
    """Yield what each pool and each group of workers of a recipe asks for at the least."""
    for name in type(recipe).model_fields:
        value, key = getattr(recipe, name), f"{above}{name}"
        if isinstance(value, TrainingWorkers):
            yield WantedPlace(key, value, value.counts[0])
        elif isinstance(value, Resources):
            yield WantedPlace(key, value, 1)  # a pool or workers that share out tasks do with one
        elif isinstance(value, BaseModel):
            yield from places_of(value, f"{key}.")


def pool_of(recipe: Recipe, role: str) -> Pool:
    """Return the pool of a role's engines that takes the most GPUs."""
    pools: list[Pool] = [getattr(recipe, stage).pool for stage in STAGES_OF[role]]
    return max(pools, key=lambda pool: pool.num_gpus)
