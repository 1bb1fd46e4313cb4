"""Judge: the teacher names the best and the worst of each list of candidates, for the senior's DPO (SPEED, 3.2).

The order in which a list is shown is drawn from the row's seed, so that no position wins by being preferred;
evaluation/position_bias.py counts whether the judge prefers one. An unparsable verdict is rejected, never a default.
"""

import random

from speed_ray import kinds
from speed_ray.engines.base import Reply, Request
from speed_ray.executor.stage import Stage
from speed_ray.prompts.parse import parse_verdict, verdict_schema
from speed_ray.records import VERDICT, CandidatesRow, Rejected, VerdictRow, seed_of
from speed_ray.stages.example_request import PROPOSE, from_json, id_columns, prompt_context, sample_slots
from speed_ray.storage.planned_rows import PlannedRow
from speed_ray.storage.run import CANDIDATES, VERDICTS, Run
from speed_ray.storage.shard_plan import Plan


class Judge(Stage[CandidatesRow, VerdictRow]):
    """Candidates -> verdict: the generator's prompt, with the reply to prefer and the one to avoid."""

    name, key, record_schema = VERDICTS, "judge", VERDICT

    def plan(self, run: Run) -> Plan:
        """Plan one verdict for each list of candidates."""
        return self.plan_per_record(run.artifact(CANDIDATES), ("judge",))

    def request(self, row: PlannedRow[CandidatesRow]) -> Request | None:
        """Render the judge prompt with the candidates in a random order; none for a single candidate."""
        candidates = row.parent["candidates"]
        if len(candidates) < 2:
            return None
        kind, topic, task = kinds.load_kind(row.parent["kind"]), row.parent["topic"], row.parent["task"]
        slots, language, _ = sample_slots(self.recipe, kind, row.parent["row_id"], PROPOSE)
        rng = random.Random(seed_of(self.recipe.seed, row.row_id, "order"))
        order = rng.sample(range(len(candidates)), len(candidates))
        shown = [candidates[index] for index in order]
        messages = self.prompts.judge(kind, slots, topic, task, language, shown, rng)
        context = prompt_context(self.key, kind, topic, task, slots, language)
        context |= {"candidates": [from_json(text) for text in shown], "order": order}
        return self.make_request(row.row_id, messages, verdict_schema(len(shown)), context)

    def parse(self, row: PlannedRow[CandidatesRow], request: Request, reply: Reply) -> list[VerdictRow]:
        """Parse the verdict and look its two candidates up."""
        candidates, order = row.parent["candidates"], request.context["order"]
        best, worst, reason = parse_verdict(reply.samples[0].text, len(order), request.messages)
        return [
            {
                **id_columns(row),
                "messages": row.parent["messages"],
                "chosen": candidates[order[best - 1]],
                "rejected": candidates[order[worst - 1]],
                "order": order,
                "best": best,
                "worst": worst,
                "reason": reason,
                "model": self.engine.model,
            }
        ]

    def without_model(self, row: PlannedRow[CandidatesRow]) -> list[VerdictRow]:
        """Reject a list that holds nothing to compare."""
        number = len(row.parent["candidates"])
        raise Rejected("too_few_candidates", f"{number} fit candidate: there is nothing to compare")
