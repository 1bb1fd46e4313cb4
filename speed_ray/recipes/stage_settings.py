"""Define what every stage that asks a model has in a recipe: its actors, its shards, and how replies are sampled."""

from typing import Annotated

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from speed_ray.recipes.actor_resources import Resources
from speed_ray.recipes.setting import RuntimeOnly, Strict


class Pool(Resources):
    """The actors of one stage: how many engines, and what each takes."""

    min_size: PositiveInt = 1  # the fewest engines
    max_size: PositiveInt = 1  # the most engines
    grace_seconds: NonNegativeFloat = 20.0  # for shards at work to be committed when the job is told to end

    @model_validator(mode="after")
    def min_size_is_at_most_max_size(self) -> "Pool":
        """Refuse a pool that can never be made."""
        if self.min_size > self.max_size:
            raise ValueError(
                f"min_size is {self.min_size} and max_size is {self.max_size}: set max_size to {self.min_size} or more"
            )
        return self


class StageSettings(Strict):
    """Holds the settings that every stage with a model has."""

    shard_rows: PositiveInt = 256  # rows that are committed together
    pool: RuntimeOnly[Pool] = Pool()

    @property
    def key(self) -> str:
        """Return the recipe's key of these settings."""
        return type(self).__name__.lower()


class Sampling(Strict):
    """Sets how an engine samples tokens (SPEED, 4.1: temperature 1, top_p 1; appendix B: at most 800 new ones)."""

    temperature: NonNegativeFloat = 1.0  # 0: always the likeliest token
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0  # the share of probability that is drawn from
    max_tokens: PositiveInt = 800  # of a reply


class SampledStage(StageSettings):
    """Holds the settings of a stage whose replies are texts, as all are but those that ask for log-probabilities."""

    sampling: Sampling = Sampling()
    max_retries: NonNegativeInt = 2  # new seeds for a malformed reply, before it is rejected for good
