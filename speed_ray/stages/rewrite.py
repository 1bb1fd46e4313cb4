"""Rewrite: the generator writes a query about a passage again that finds it late, shown the one that it wrote before.

The prompt is the one by which queries about passages are asked for, and says in addition what is to be bettered. Rows
whose passage is found soon enough are asked about by nobody.
"""

from speed_ray import kinds
from speed_ray.engines.base import Reply, Request
from speed_ray.executor.stage import Stage, artifact_identity
from speed_ray.prompts.render import A_PASSAGE
from speed_ray.recipes.engine_settings import continues_lines
from speed_ray.records import HELD_OUT, REWRITTEN, Message, PassageRow, RankedRow, Rejected, RewrittenRow
from speed_ray.stages.example_request import SYNTHESIZE, parse_sample, prompt_context
from speed_ray.stages.passage_prompt import draw_prompt
from speed_ray.storage.fingerprint import model_label
from speed_ray.storage.planned_rows import PlannedRow
from speed_ray.storage.run import RANKED_EXAMPLES, REWRITTEN_EXAMPLES, Run
from speed_ray.storage.shard_plan import Plan

FOUND = "found_soon"
BETTER = (
    "- Other passages answer this query as well: {query}\n- Write another one, which names what only the passage says."
)
BETTER_LINE = "Too general, other passages answer it: {query}"


class Rewrite(Stage[RankedRow, RewrittenRow]):
    """Ranked example -> the same with another query, or with the reason why it has none."""

    name, key, record_schema, role = REWRITTEN_EXAMPLES, "revise", REWRITTEN, "generator"

    def plan(self, run: Run) -> Plan:
        """Plan the rows and shards of the ranked examples."""
        ranked = run.artifact(RANKED_EXAMPLES)
        identity = {**self.identity(artifact_identity(ranked)), "found_after": self.recipe.revise.found_after}
        source = ranked.plan()
        assert source is not None, "it is published"
        return Plan(self.name, source.rows, source.shard_rows, source.stage, identity=identity)

    def request(self, row: PlannedRow[RankedRow]) -> Request | None:
        """Render the prompt for another query; none where the passage is found soon enough."""
        example = row.parent
        if example["rank"] <= self.recipe.revise.found_after:
            return None
        # Held out, so that no example of the user's is shown that may be about this very passage.
        passage: PassageRow = {**A_PASSAGE, "id": example["parent_id"], "title": "", "headings": "", "split": HELD_OUT}
        passage["text"] = example["positive"]
        about = PlannedRow(example["row_id"], passage, "0")
        kind, slots, language, shots, _ = draw_prompt(self.recipe, about, SYNTHESIZE, ())
        completion = continues_lines(self.engine)
        messages = self.prompts.ground(kind, slots, passage, language, shots, completion)
        context = prompt_context(self.key, kind, example["topic"], "", slots, language)
        context["passage"] = example["positive"]
        schema = None if completion else kind.schema
        return self.make_request(row.row_id, _show(messages, example["query"], completion), schema, context)

    def parse(self, row: PlannedRow[RankedRow], request: Request, reply: Reply) -> list[RewrittenRow]:
        """Parse the other query. Raises Rejected for one that is the former."""
        fields = parse_sample(request, reply.samples[0])
        query = fields[kinds.load_grounded(row.parent["kind"]).query]
        if query == row.parent["query"]:
            raise Rejected("unchanged", "the query is the one that it was")
        return [{**row.parent, "rewritten": query, "writer": model_label(self.engine), "kept_because": ""}]

    def without_model(self, row: PlannedRow[RankedRow]) -> list[RewrittenRow]:
        """Return an example whose passage is found soon enough as it is."""
        return _as_it_was(row.parent, FOUND)

    def fallback(self, row: PlannedRow[RankedRow], rejected: Rejected) -> list[RewrittenRow]:
        """Return the example as it was, with the reason why it has no other query."""
        return _as_it_was(row.parent, rejected.reason)


def _as_it_was(example: RankedRow, reason: str) -> list[RewrittenRow]:
    return [{**example, "rewritten": "", "writer": "", "kept_because": reason}]


def _show(messages: list[Message], query: str, completion: bool) -> list[Message]:
    """Show the former query in a prompt: after its guidelines, or above the line that is to be continued."""
    query, (message,) = " ".join(query.split()), messages
    if not completion:
        return [{**message, "content": f"{message['content']}\n{BETTER.format(query=query)}"}]
    above, _, line = message["content"].rpartition("\n")
    return [{**message, "content": f"{above}\n{BETTER_LINE.format(query=query)}\n{line}"}]
