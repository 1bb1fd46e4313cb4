"""Refuse judges of no use: those whose scores are no numbers, and those that tell no text from another."""

import math
from collections.abc import Sequence

from speed_ray.errors import UserError
from speed_ray.recipes.score_settings import BM25, LLM, MIXTURE, REFERENCE
from speed_ray.records import PairScoresRow

ENOUGH = 32  # candidates that no model gives one score to by chance


def key_of_judge(name: str) -> str:
    """Return the recipe's key that says who a judge is, for messages."""
    built_in = {REFERENCE: "curate.reference", BM25: "score.judges", MIXTURE: "score.judges", LLM: "score.llm"}
    return built_in.get(name, f"score.cross_encoders.{name}")


def refuse_useless_models(rows: Sequence[PairScoresRow], models: Sequence[str]) -> None:
    """Raise UserError where a judge's score of a row is no finite number, or one of the models has one for all."""
    for place, name in enumerate(each["judge"] for each in rows[0]["judged"]):
        given = [row["judged"][place]["scores"] for row in rows]
        for row, scores in zip(rows, given, strict=True):
            if not all(map(math.isfinite, scores)):
                raise UserError(
                    f"{key_of_judge(name)}: the judge {name!r} gave row {row['id']} a score that is no finite "
                    f"number.\nName another model, or leave {name!r} out of score.judges."
                )
        if name in models and sum(map(len, given)) >= ENOUGH and len(set().union(*given)) == 1:
            raise one_score_to_all(name, given[0][0])


def one_score_to_all(name: str, score: float) -> UserError:
    """Return the refusal of a judge that tells no text from another."""
    return UserError(
        f"{key_of_judge(name)}: the judge {name!r} gives all texts that may answer a query one score (such as "
        f"{score:g}), so nothing can be told by it.\nName another model, or leave {name!r} out of score.judges."
    )
