"""Plan, render and parse the prompt of one example, which a teacher drafts, a junior proposes and a senior writes.

What varies in a prompt is drawn from the planned row's id, so it can be drawn again wherever it is needed: to check a
revision, or to tell a judge what was asked for.
"""

import json
import random
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple, TypedDict

from speed_ray import kinds
from speed_ray.engines.base import PromptContext, Request, Sample
from speed_ray.errors import UserError
from speed_ray.executor.stage import Record, Stage, artifact_identity, count_records
from speed_ray.kinds.kind import Fields, Kind, Slots
from speed_ray.prompts.own_examples import read_own_examples
from speed_ray.prompts.parse import parse_example, parse_grounded
from speed_ray.recipes.engine_settings import EngineConfig, continues_lines
from speed_ray.recipes.schema import Recipe
from speed_ray.records import HELD_OUT, ExampleRow, IdColumns, PassageRow, Rejected, seed_of, titled_text
from speed_ray.stages.passage_prompt import draw_kind, draw_prompt
from speed_ray.storage.planned_rows import PlannedRow
from speed_ray.storage.run import NEIGHBOURS, PASSAGES, TASKS, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.text import rules

# What each stage's slots are seeded with: the same task is put otherwise to the junior than it was to the teacher.
DRAFT, PROPOSE, SYNTHESIZE = "slots of draft", "slots of propose", "slots"


class SampledSlots(NamedTuple):
    """Hold what varies in one prompt, and the random generator in the state in which the guidelines are shuffled."""

    slots: Slots
    language: str
    rng: random.Random


class ExampleStage(Stage[Any, Record]):
    """Base class of the stages that ask for examples of tasks, or of passages; a subclass parses the replies."""

    seed_purpose: ClassVar[str]  # DRAFT, PROPOSE or SYNTHESIZE
    is_learnt: ClassVar[bool] = False  # by a generator, which is to know nothing of documents that are held out

    def __init__(self, recipe: Recipe, engine: EngineConfig | None = None) -> None:
        super().__init__(recipe, engine)
        self._own = read_own_examples(recipe.corpus.examples if recipe.corpus and recipe.is_grounded else None)

    @property
    def samples(self) -> int:
        """Return how many samples each prompt gets."""
        return 1

    def kind_of(self, row: PlannedRow[Any]) -> str:
        """Return the kind of a task, or the one that is drawn for a prompt about a passage."""
        return draw_kind(self.recipe, row.row_id) if self.recipe.is_grounded else super().kind_of(row)

    def as_of_task(self, row: PlannedRow[Any]) -> PlannedRow[Any]:
        """Return a planned row with the columns of a task; a passage has its title for the topic, and no task."""
        if not self.recipe.is_grounded:
            return row
        parent = {"id": row.parent["id"], "kind": self.kind_of(row), "topic": row.parent["title"], "task": ""}
        return replace(row, parent=parent)

    def request(self, row: PlannedRow[Any]) -> Request | None:
        """Render the prompt of a row; none about a held-out document where a generator learns from the reply."""
        return None if self.is_learnt and row.parent.get("split") == HELD_OUT else self.render(row)

    def without_model(self, row: PlannedRow[Any]) -> list[Record]:
        """Reject a passage that nothing may be learnt from."""
        raise Rejected(HELD_OUT, f"nothing is learnt from the document {row.parent['document_id']}")

    def render(self, row: PlannedRow[Any]) -> Request:
        """Render the prompt for an example of the task, or about the passage, `row.parent`."""
        if self.recipe.is_grounded:
            return self._about_passage(row, self.engine)
        kind, topic, task = kinds.load_kind(row.parent["kind"]), row.parent["topic"], row.parent["task"]
        slots, language, rng = sample_slots(self.recipe, kind, row.row_id, self.seed_purpose)
        messages = self.prompts.synthesize(kind, slots, topic, task, language, rng)
        context = prompt_context(self.key, kind, topic, task, slots, language)
        return self.make_request(row.row_id, messages, kind.schema, context, self.samples)

    def as_generator_is_asked(self, row: PlannedRow[Any], request: Request) -> Request:
        """Render a row's prompt as the recipe's generator is asked, who may continue lines where this engine chats."""
        asked = self.recipe.generator
        if not self.recipe.is_grounded or continues_lines(asked) == continues_lines(self.engine):
            return request
        return self._about_passage(row, asked)

    def _about_passage(self, row: PlannedRow[PassageRow], engine: EngineConfig) -> Request:
        kind, slots, language, shots, neighbour = draw_prompt(self.recipe, row, self.seed_purpose, self._own.shots)
        completion = continues_lines(engine)
        messages = self.prompts.ground(kind, slots, row.parent, language, shots, completion, neighbour)
        context = prompt_context(self.key, kind, row.parent["title"], "", slots, language)
        context["passage"] = titled_text(row.parent)
        if neighbour:
            context["neighbour"] = neighbour
        return self.make_request(row.row_id, messages, None if completion else kind.schema, context, self.samples)

    def plan_prompts(self, run: Run, prompts: int | None, per_passage: int = 1, **decides: int) -> Plan:
        """Plan so many prompts: kinds by the mix, tasks in order, a new variant each time around.

        About documents there are `per_passage` of each passage, and at most so many, of passages spread evenly.
        `decides` joins the plan's identity. Raises UserError where the mix has a kind without a task.
        """
        if self.recipe.is_grounded:
            return self._plan_passages(run, prompts, per_passage, decides)
        assert prompts is not None  # by the recipe's check
        tasks = run.artifact(TASKS)
        identity = self.identity(artifact_identity(tasks))
        manifest = tasks.manifest()
        assert manifest is not None
        mix = {kind: weight for kind, weight in sorted(self.recipe.mix.items()) if weight}
        without = [kind for kind in mix if not manifest["counts"]["kinds"].get(kind)]
        if without:
            raise UserError(
                f"mix gives weight to {', '.join(without)}, but {tasks.where} holds no such task.\n"
                f"See why with: speed-ray show {run.uri} proposed_tasks --rejects --kind {without[0]}"
            )
        shard_rows = self.settings.shard_rows
        return Plan(self.name, prompts, shard_rows, TASKS, mix=mix, identity={**identity, **decides})

    def _plan_passages(self, run: Run, at_most: int | None, per_passage: int, decides: dict[str, int]) -> Plan:
        contrast = self.recipe.synthesize.contrast
        passages = run.artifact(asked_about(self.recipe))
        more = {"own_examples": self._own.digest, "contrast": contrast, **decides}
        identity = {**self.identity(artifact_identity(passages)), **more}
        rows, variants = count_records(passages) * per_passage, tuple(map(str, range(per_passage)))
        rows = rows if at_most is None else min(rows, at_most)
        return Plan(self.name, rows, self.settings.shard_rows, passages.name, variants, identity=identity)


def asked_about(recipe: Recipe) -> str:
    """Name the artifact that prompts about documents are about: passages, or passages with their neighbours."""
    return NEIGHBOURS if recipe.synthesize.contrast else PASSAGES


def sample_slots(recipe: Recipe, kind: Kind, row_id: str, purpose: str) -> SampledSlots:
    """Draw slots and language of the prompt of a row, for DRAFT, PROPOSE or SYNTHESIZE: the same each time."""
    rng = random.Random(seed_of(recipe.seed, row_id, purpose))
    slots = kind.slots(rng) | recipe.slots.get(kind.name, {})
    language = rng.choices(list(recipe.languages), list(recipe.languages.values()))[0]
    return SampledSlots(slots, language, rng)


def prompt_context(stage: str, kind: Kind, topic: str, task: str, slots: Slots, language: str) -> PromptContext:
    """Return the context that a prompt about one example is rendered from."""
    return {"stage": stage, "kind": kind.name, "topic": topic, "task": task, "slots": slots, "language": language}


def parse_by_context(request: Request, text: str) -> Fields:
    """Parse a reply as an example of the kind, slots and language that its request asked for. Raises Rejected.

    Of a request about a passage, the passage is no field; a neighbour that it shows may not be copied either.
    """
    context = request.context
    if "passage" in context:
        kind, passage, one_line = kinds.load_grounded(context["kind"]), context["passage"], request.schema is None
        fields = parse_grounded(text, kind, context["slots"], context["language"], passage, one_line)
        refuse_copied_neighbour(fields, context.get("neighbour", ""))
        return fields
    return parse_example(text, kinds.load_kind(context["kind"]), context["slots"], context["language"])


def refuse_copied_neighbour(fields: Fields, neighbour: str) -> None:
    """Raise Rejected where a text is a piece of the passage, if any, that is not to answer it."""
    for name, written in fields.items():
        if neighbour and rules.own_words(name, written, neighbour):
            raise Rejected("copied_neighbour", f"{name} repeats the passage that is not to answer it")


def parse_sample(request: Request, sample: Sample) -> Fields:
    """Parse one sample of a reply as `parse_by_context` does. Raises Rejected, also for a line without an end."""
    if request.schema is None and sample.finish_reason == "length":
        raise Rejected("unfinished", "the line has no end")
    return parse_by_context(request, sample.text)


def to_reply(fields: Fields, one_line: bool) -> str:
    """Write an example as a model learns to: as JSON, or as the one line that continues its prompt."""
    return next(iter(fields.values())) if one_line else to_json(fields)


def to_query(engine: EngineConfig, kind: Kind, reply: str) -> str:
    """Read the query about a passage from what `to_reply` wrote for an engine."""
    return reply if continues_lines(engine) else from_json(reply)[kind.query]


def to_json(fields: Fields) -> str:
    """Serialize an example as the JSON that a model learns to write, its fields in the kind's order, not escaped."""
    return json.dumps(fields, ensure_ascii=False)


def from_json(text: str) -> Fields:
    """Parse what `to_json` wrote."""
    fields: Fields = json.loads(text)
    return fields


class TextColumns(TypedDict):
    """The columns that an example's fields become."""

    query: str
    positive: str
    negatives: list[str]


def to_columns(kind: Kind, fields: Fields) -> TextColumns:
    """Convert an example's fields to the columns `query`, `positive` and `negatives`."""
    return {
        "query": fields[kind.query],
        "positive": fields[kind.positive],
        "negatives": [fields[kind.negative]] if kind.negative else [],
    }


def from_columns(kind: Kind, example: ExampleRow) -> Fields:
    """Convert an example's columns back to its fields, in the order of their kind."""
    texts = {kind.query: example["query"], kind.positive: example["positive"]}
    if kind.negative:
        texts[kind.negative] = example["negatives"][0]
    return {field.name: texts[field.name] for field in kind.fields}


def id_columns(row: PlannedRow[Any]) -> IdColumns:
    """Return the columns that every record about one example begins with; there is one for each planned row."""
    return {
        "id": row.row_id,
        "row_id": row.row_id,
        "parent_id": row.parent["id"],
        "kind": row.parent["kind"],
        "topic": row.parent["topic"],
    }
