"""A finished run to export: passages, and examples about them with splits, scores and up to two negatives."""

from typing import Any

from speed_ray.records import PASSAGE, SCORED, Row
from speed_ray.stages import driver_stage
from speed_ray.storage.run import PASSAGES, SCORED_EXAMPLES, Run
from speed_ray.storage.shard_plan import Plan
from tests.helpers.grounded_run import example, grounded, passage

COUNT = 40
HELD_OUT_EVERY = 5
MORE_POSITIVES = (1, 2)  # rows to train on that have a second positive


def finished_run(uri: str, kind: str = "retrieval", *overrides: str) -> Run:
    """Publish 40 passages and an example about each, seven rows to a shard; every fifth is held out."""
    run = Run(uri)
    run.freeze(grounded("score={judges: [bm25]}", *overrides))
    passages = [passage(f"The lamp {n} shines.", f"d{n}", f"Lamp {n}", _split(n)) for n in range(COUNT)]
    texts = [f"{each['title']} {each['text']}" for each in passages]
    examples = [
        {
            **example(f"Which lamp is {n}?", about, kind),
            "split": about["split"],
            "negatives": [texts[(n + 1 + k) % COUNT] for k in range(n % 3)],
            "further_positives": [texts[(n + 5) % COUNT]] * (n in MORE_POSITIVES),
            "scores": [
                {
                    "judge": "bm25",
                    "positive": 2.0,
                    "further_positives": [1.5] * (n in MORE_POSITIVES),
                    "negatives": [1.0 / (k + 1) for k in range(n % 3)],
                }
            ],
            "gates": [],
            "relabelled_from": "",
            "dropped": [],
        }
        for n, about in enumerate(passages)
    ]
    publish_rows(run, PASSAGES, passages, PASSAGE)
    publish_rows(run, SCORED_EXAMPLES, examples, SCORED)
    return run


def publish_rows(run: Run, name: str, rows: list[Any], schema: Any) -> None:
    results = (driver_stage.RowResult(row["id"], row, None) for row in rows)
    driver_stage.publish_rows(run.artifact(name), Plan(name, len(rows), 7), schema, results)


def records(run: Run) -> list[Row]:
    return list(run.artifact(SCORED_EXAMPLES).records())


def _split(number: int) -> str:
    return "held_out" if number % HELD_OUT_EVERY == 0 else "train"
