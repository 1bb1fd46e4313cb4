"""Relevance: the teacher says yes or no to whether each text of a curated example answers its query.

What counts is not the answer but the log-odds of yes against no as its first token: a score that graded losses and
gates can use. A model that thinks before it answers has to be told not to, or no token is either.
"""

import pyarrow.compute as pc

from speed_ray import kinds
from speed_ray.engines.base import Reply, Request
from speed_ray.executor.stage import Stage
from speed_ray.prompts.yes_no import log_odds
from speed_ray.records import RELEVANCE_ROW, CuratedRow, Rejected, RelevanceRow
from speed_ray.stages.example_request import id_columns
from speed_ray.storage.fingerprint import model_label
from speed_ray.storage.planned_rows import PlannedRow
from speed_ray.storage.run import CURATED_EXAMPLES, RELEVANCE, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import Artifact


class Relevance(Stage[CuratedRow, RelevanceRow]):
    """Curated example and one of its texts -> the log-odds that the text answers the query."""

    name, key, record_schema = RELEVANCE, "score.llm", RELEVANCE_ROW

    def plan(self, run: Run) -> Plan:
        """Plan as many texts of each example as the one with the most negatives has."""
        curated = run.artifact(CURATED_EXAMPLES)
        return self.plan_per_record(curated, [str(place) for place in range(1 + _most_negatives(curated))])

    def request(self, row: PlannedRow[CuratedRow]) -> Request | None:
        """Render the question about the positive or a negative; none where the example has fewer."""
        example, place = row.parent, int(row.variant)
        if place > len(example["negatives"]):
            return None
        text = example["negatives"][place - 1] if place else example["positive"]
        kind = kinds.load_kind(example["kind"])
        messages = self.prompts.relevance(kind, example["instruction"], example["query"], text)
        return self.request_logprobs(row.row_id, messages, "first_token")

    def parse(self, row: PlannedRow[CuratedRow], request: Request, reply: Reply) -> list[RelevanceRow]:
        """Read the log-odds."""
        odds = log_odds(reply.samples[0].logprobs)
        return [{**id_columns(row), "place": int(row.variant), "log_odds": odds, "model": model_label(self.engine)}]

    def without_model(self, row: PlannedRow[CuratedRow]) -> list[RelevanceRow]:
        """Reject the place of a negative that an example does not have."""
        raise Rejected("no_negative", f"the example has {len(row.parent['negatives'])} negatives")


def _most_negatives(curated: Artifact) -> int:
    tables = (curated.read(file.path) for file in curated.record_files().values())
    return max((pc.max(pc.list_value_length(table["negatives"])).as_py() for table in tables), default=0)
