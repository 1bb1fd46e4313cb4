"""Fluency: the generator's base model tells how likely it finds what was written, and what people wrote.

It is given a text alone, without a prompt, and tells the log-probability of each token after those before it. Texts of
people are passages of the corpus, each from one of its sentences on. What follows a token does not change its
log-probability, so the first n tokens of such texts show how likely a text of n tokens is: curation/fluency_gate.py.
"""

import random
from typing import Any

from speed_ray import kinds
from speed_ray.documents.sentences import split_sentences
from speed_ray.engines.base import Reply, Request
from speed_ray.executor.stage import Record, Stage, artifact_identity, count_records, engine_identity
from speed_ray.recipes import language_model_settings
from speed_ray.recipes.engine_settings import EngineConfig
from speed_ray.recipes.schema import Recipe
from speed_ray.records import (
    FLUENCY_ROW,
    REFERENCE_FLUENCY_ROW,
    CuratedRow,
    FluencyRow,
    PassageRow,
    ReferenceFluencyRow,
    Rejected,
    seed_of,
)
from speed_ray.stages.example_request import id_columns
from speed_ray.storage.fingerprint import code_digests, without_adapter
from speed_ray.storage.planned_rows import Parent, PlannedRow
from speed_ray.storage.run import CURATED_EXAMPLES, FLUENCY, PASSAGES, REFERENCE_FLUENCY, Run
from speed_ray.storage.shard_plan import Plan

QUERY, POSITIVE = "query", "positive"
WRITTEN = "written"  # the variant of an example about a passage: the one of its two sides that is not the passage
LONGEST_LINE, LONGEST_DOCUMENT = 64, 512  # words of a text of the corpus: as long as what is compared with it
MOST_TEXTS = 8  # of one passage, which begin at different sentences or, where it has few, at the same


class FluencyStage(Stage[Parent, Record]):
    """Base class of the two stages that ask how likely a text is; a subclass names the text and reads the reply."""

    key, role = "score.fluency", "generator"

    def __init__(self, recipe: Recipe, engine: EngineConfig | None = None) -> None:
        super().__init__(recipe, engine or without_adapter(recipe.generator))

    def identity(self, source: dict[str, Any]) -> dict[str, Any]:
        """Return all that decides the rows; of the recipe's prompts and sampling nothing does."""
        return {
            "code": code_digests(type(self).__module__),
            "input": source,
            "engine": engine_identity(self.engine, self.role),
            "seed": self.recipe.seed,
        }

    def request_text(self, row: PlannedRow[Any], text: str) -> Request | None:
        """Return the request for a text's log-probabilities, none for a blank one."""
        return (
            self.request_logprobs(row.row_id, [{"role": "user", "content": text}], "prompt") if text.strip() else None
        )


class Fluency(FluencyStage[CuratedRow, FluencyRow]):
    """Curated example -> how likely its query is, and its positive, as far as no person wrote them."""

    name, record_schema = FLUENCY, FLUENCY_ROW

    def plan(self, run: Run) -> Plan:
        """Plan a text for each example about a passage, two for each other one."""
        variants = (WRITTEN,) if self.recipe.is_grounded else (QUERY, POSITIVE)
        return self.plan_per_record(run.artifact(CURATED_EXAMPLES), variants)

    def request(self, row: PlannedRow[CuratedRow]) -> Request | None:
        """Ask about the text; not about a label, which is no sentence."""
        side = _side(row)
        if side == POSITIVE:
            is_label = kinds.load_kind(row.parent["kind"]).positive_is_label
            return None if is_label else self.request_text(row, row.parent["positive"])
        return self.request_text(row, row.parent["query"])

    def parse(self, row: PlannedRow[CuratedRow], request: Request, reply: Reply) -> list[FluencyRow]:
        """Take the mean of the tokens' log-probabilities."""
        return [_fluency(row, [each["logprob"] for each in reply.samples[0].logprobs])]

    def without_model(self, row: PlannedRow[CuratedRow]) -> list[FluencyRow]:
        """Return a row of no tokens."""
        return [_fluency(row, [])]


class ReferenceFluency(FluencyStage[PassageRow, ReferenceFluencyRow]):
    """Passage -> how likely its text is from one of its sentences on, token by token."""

    name, record_schema = REFERENCE_FLUENCY, REFERENCE_FLUENCY_ROW

    def plan(self, run: Run) -> Plan:
        """Plan `references` texts, of passages spread evenly over the corpus; several of each where these are few."""
        assert isinstance(self.settings, language_model_settings.Fluency)
        passages, wanted = run.artifact(PASSAGES), self.settings.references
        identity = self.identity(artifact_identity(passages))
        there = count_records(passages)
        each = min(-(-wanted // there), MOST_TEXTS)
        variants = tuple(map(str, range(each)))
        return Plan(
            self.name, min(there * each, wanted), self.settings.shard_rows, PASSAGES, variants, identity=identity
        )

    def kind_of(self, row: PlannedRow[PassageRow]) -> str:
        """Return what all of these rows are."""
        return "text"

    def request(self, row: PlannedRow[PassageRow]) -> Request | None:
        """Ask about the passage from one of its sentences on."""
        return self.request_text(row, self._text(row))

    def parse(self, row: PlannedRow[PassageRow], request: Request, reply: Reply) -> list[ReferenceFluencyRow]:
        """Keep each token's log-probability."""
        return [
            {
                "id": row.row_id,
                "row_id": row.row_id,
                "parent_id": row.parent["id"],
                "kind": self.kind_of(row),
                "topic": row.parent["title"],
                "text": request.messages[0]["content"],
                "logprobs": [each["logprob"] for each in reply.samples[0].logprobs],
            }
        ]

    def without_model(self, row: PlannedRow[PassageRow]) -> list[ReferenceFluencyRow]:
        """Reject a passage without a word."""
        raise Rejected("blank", "the passage holds no word")

    def _text(self, row: PlannedRow[PassageRow]) -> str:
        sentences = list(split_sentences(row.parent["text"]))
        first = random.Random(seed_of(self.recipe.seed, row.row_id, "sentence")).randrange(len(sentences) or 1)
        longest = LONGEST_LINE if self.recipe.is_grounded else LONGEST_DOCUMENT
        return " ".join("".join(sentences[first:]).split()[:longest])


def _side(row: PlannedRow[CuratedRow]) -> str:
    if row.variant != WRITTEN:
        return row.variant
    kind = kinds.load_grounded(row.parent["kind"])
    return POSITIVE if kind.query == kind.passage else QUERY


def _fluency(row: PlannedRow[CuratedRow], logprobs: list[float]) -> FluencyRow:
    mean = sum(logprobs) / len(logprobs) if logprobs else 0.0
    return {**id_columns(row), "side": _side(row), "tokens": len(logprobs), "logprob": mean}
