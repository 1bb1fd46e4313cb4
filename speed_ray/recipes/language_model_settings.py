"""Define how a recipe asks language models about curated pairs: how likely a text is, and whether it answers."""

from pydantic import PositiveInt

from speed_ray.recipes.stage_settings import StageSettings


class Fluency(StageSettings):
    """The generator's base model tells how likely it finds queries and positives, and texts of the corpus."""

    references: PositiveInt = 500  # texts of the corpus

    @property
    def key(self) -> str:
        """Return the recipe's key of these settings."""
        return "score.fluency"


class Llm(StageSettings):
    """The teacher says yes or no to whether a text answers a query."""

    @property
    def key(self) -> str:
        """Return the recipe's key of these settings."""
        return "score.llm"
