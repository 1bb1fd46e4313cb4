"""Propose: the junior writes a list of candidates for every prompt, which are judged and critiqued (SPEED, 3.2)."""

from typing import Any

from speed_ray.engines.base import Reply, Request
from speed_ray.records import CANDIDATE_LIST, CandidatesRow, Rejected
from speed_ray.stages.example_request import PROPOSE, ExampleStage, id_columns, parse_sample, to_reply
from speed_ray.storage.fingerprint import model_label
from speed_ray.storage.planned_rows import PlannedRow
from speed_ray.storage.run import CANDIDATES, Run
from speed_ray.storage.shard_plan import Plan


class Propose(ExampleStage[CandidatesRow]):
    """Task or passage -> a list of different candidates; all raw replies are kept, whatever becomes of them."""

    name, key, record_schema, role = CANDIDATES, "propose", CANDIDATE_LIST, "generator"
    seed_purpose, is_learnt = PROPOSE, True

    @property
    def samples(self) -> int:
        """Return how many samples each prompt gets: the candidates of a list."""
        return self.recipe.propose.candidates

    def plan(self, run: Run) -> Plan:
        """Plan `propose.lists` prompts."""
        return self.plan_prompts(run, self.recipe.propose.lists, candidates=self.samples)

    def parse(self, row: PlannedRow[Any], request: Request, reply: Reply) -> list[CandidatesRow]:
        """Parse each sample; keep those that pass the checks, each text once, in the order in which they came.

        Raises the first sample's Rejected where none passes.
        """
        fit: dict[str, None] = {}
        unfit: list[Rejected] = []
        for sample in reply.samples:
            try:
                fit[to_reply(parse_sample(request, sample), request.schema is None)] = None
            except Rejected as rejected:
                unfit.append(rejected)
        if not fit:
            raise unfit[0]
        about = self.as_of_task(row)
        return [
            {
                **id_columns(about),
                "messages": request.messages,
                "task": about.parent["task"],
                "language": request.context["language"],
                "candidates": list(fit),
                "model": model_label(self.engine),
            }
        ]
