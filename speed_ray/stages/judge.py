"""The teacher names the best and the worst of each list of candidates: what the senior generator learns (SPEED, 3.2).

The order in which a list is shown is drawn from the row's seed, so that no place can win: whether one does all the
same, evaluation/position_bias.py reads from the verdicts. A verdict that cannot be read is a reject, never a default.
"""

import random

from speed_ray import kinds
from speed_ray.engines.base import Reply, Request
from speed_ray.executor.stage import Stage, plan_per_record
from speed_ray.prompts.parse import parse_verdict, verdict_schema
from speed_ray.prompts.render import Prompts
from speed_ray.recipes.schema import Recipe
from speed_ray.records import VERDICT, Rejected, Row, seed_of
from speed_ray.stages.example_request import PROPOSE, from_json, id_columns, prompt_context, sample_slots
from speed_ray.storage.planned_rows import PlannedRow
from speed_ray.storage.run import CANDIDATES, VERDICTS, Run
from speed_ray.storage.shards import Plan


def plan(run: Run, recipe: Recipe) -> Plan:
    """One verdict for each list of candidates."""
    return plan_per_record(recipe, run.artifact(CANDIDATES), VERDICTS, ("judge",), recipe.teacher, recipe.judge)


def stage(recipe: Recipe) -> Stage:
    """Candidates -> verdict: the prompt as the generator was asked, with the reply to prefer and the one to avoid."""
    prompts = Prompts(recipe.prompts)
    sampling = recipe.judge.sampling.model_dump()

    def request(row: PlannedRow) -> Request | None:
        candidates = row.parent["candidates"]
        if len(candidates) < 2:
            return None
        kind, topic, task = kinds.load_kind(row.parent["kind"]), row.parent["topic"], row.parent["task"]
        slots, language, _ = sample_slots(recipe, kind, row.parent["row_id"], PROPOSE)
        rng = random.Random(seed_of(recipe.seed, row.row_id, "order"))
        order = rng.sample(range(len(candidates)), len(candidates))
        shown = [candidates[number] for number in order]
        facts = prompt_context("judge", kind, topic, task, slots, language)
        return Request(
            row_id=row.row_id,
            messages=prompts.judge(kind, slots, topic, task, language, shown, rng),
            **sampling,
            schema=verdict_schema(len(shown)),
            facts={**facts, "candidates": [from_json(text) for text in shown], "order": order},
        )

    def parse(row: PlannedRow, request: Request | None, reply: Reply | None) -> list[Row]:
        candidates = row.parent["candidates"]
        if request is None or reply is None:
            raise Rejected("too_few_candidates", f"{len(candidates)} fit candidate: there is nothing to compare")
        order = request.facts["order"]
        best, worst, reason = parse_verdict(reply.samples[0].text, len(order))
        answers = {"chosen": candidates[order[best - 1]], "rejected": candidates[order[worst - 1]]}
        said = {"order": order, "best": best, "worst": worst, "reason": reason, "model": recipe.teacher.model}
        return [{**id_columns(row), "messages": row.parent["messages"], **answers, **said}]

    return Stage(VERDICTS, VERDICT, "teacher", recipe.teacher, recipe.judge, recipe.seed, request, parse)
