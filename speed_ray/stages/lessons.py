"""Take the junior's lessons from pairs of a query and a passage that there are already: no teacher is asked for them.

The documents' own: a title leads to the beginning of its document, a heading to the section below it, and one that
asks something to the answer. Or the user's: the queries of `corpus.examples`. A lesson is the prompt that the writer
will be asked later, about the passage without that title or heading, which is the reply; it passes the checks of any
reply. None is of a document that is held out, and what stands above several passages leads to none of them.
"""

import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from speed_ray import kinds
from speed_ray.curation.contamination import word_runs
from speed_ray.errors import UserError
from speed_ray.executor.stage import artifact_identity, count_records
from speed_ray.kinds.kind import Shot
from speed_ray.prompts.own_examples import FORM, read_own_examples
from speed_ray.prompts.parse import parse_grounded
from speed_ray.prompts.render import A_PASSAGE, load_prompts
from speed_ray.recipes.engine_settings import continues_lines
from speed_ray.recipes.schema import Recipe
from speed_ray.records import HELD_OUT, SFT_EXAMPLE, TRAIN, PassageRow, Rejected, SftRow, content_id, titled_text
from speed_ray.stages import driver_stage
from speed_ray.stages.example_request import asked_about, refuse_copied_neighbour, to_reply
from speed_ray.stages.passage_prompt import fit_prompt
from speed_ray.storage.fingerprint import code_digests
from speed_ray.storage.planned_rows import PlannedRow
from speed_ray.storage.run import DRAFTS, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import Artifact
from speed_ray.text import rules
from speed_ray.text.rules import is_plain
from speed_ray.text.token_hashes import Places, hash_tokens
from speed_ray.text.words import words_digest

TITLE, QUESTION = "title", "question"  # the forms of query that a title or heading may be
LEADS = ["parent_id", "title", "headings", "split"]  # the columns that tell what leads to a passage
_ASKS = re.compile(r".*[?？؟]\W*|(?:how|what|when|where|which|who|why)(?:\s+\S+){2,}", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Prepared:
    """Hold planned lessons, of which none is written yet."""

    plan: Plan
    rows: Iterator[driver_stage.RowResult]


def prepare_lessons(run: Run, recipe: Recipe) -> Prepared:
    """Choose up to `draft.examples` pairs. Raises UserError before the passages are published, or without a pair."""
    passages, writer = run.artifact(asked_about(recipe)), LessonWriter(recipe)
    source = artifact_identity(passages)
    if recipe.draft.lessons == "examples":
        distinct = list({(shot.passage, shot.lines[FORM]): shot for shot in writer.own.shots}.values())
        shots = [distinct[place] for place in _even_places(len(distinct), recipe.draft.examples)]
        lessons, rows = len(shots), _of_user(passages, writer, shots)
    else:
        places = _choose_places(passages, recipe)
        lessons, rows = len(places), _of_corpus(passages, writer, places)
    identity = {**writer.identity(), "input": source, "lessons": recipe.draft.lessons}
    return Prepared(Plan(DRAFTS, lessons, recipe.draft.shard_rows, passages.name, identity=identity), rows)


def publish_lessons(run: Run, prepared: Prepared) -> Artifact:
    """Publish each pair as a lesson, or as a reject with what is wrong with it."""
    artifact = run.artifact(DRAFTS)
    driver_stage.publish_rows(artifact, prepared.plan, SFT_EXAMPLE, prepared.rows)
    return artifact


class LessonWriter:
    """Write lessons as the recipe's generator will be asked."""

    def __init__(self, recipe: Recipe) -> None:
        assert recipe.corpus is not None  # by the recipe's check
        self.recipe = recipe
        self.prompts = load_prompts(recipe.prompts)
        self.own = read_own_examples(recipe.corpus.examples)
        self.one_line = continues_lines(recipe.generator)

    def identity(self) -> dict[str, object]:
        """Return all that decides what a pair becomes."""
        mixed = [f"{kinds.__name__}.{name}" for name, weight in self.recipe.mix.items() if weight]
        return {
            "code": code_digests(__name__, *mixed),
            "prompts": self.prompts.digests,
            "own_examples": self.own.digest,
            "lines": self.one_line,
            "languages": self.recipe.languages,
            "mix": self.recipe.mix,
            "slots": self.recipe.slots,
            "seed": self.recipe.seed,
        }

    def write(self, said: str, passage: PassageRow, parent_id: str, topic: str) -> driver_stage.RowResult:
        """Write the lesson that `said` is what somebody looks for a passage by, or reject the pair."""
        row = PlannedRow(content_id(passage["id"], said), passage, "0")
        kind, slots, language, shots, neighbour = fit_prompt(self.recipe, row, said, form_of(said), self.own.shots)
        try:
            fields = parse_grounded(said, kind, slots, language, titled_text(passage), one_line=True)
            refuse_copied_neighbour(fields, neighbour)
            if not any(map(str.isalnum, passage["text"])):
                raise Rejected("no_text", "the passage holds nothing else")
            if copied := rules.not_copied((kind.query, fields[kind.query]), ("the passage", passage["text"])):
                raise Rejected(*copied)
        except Rejected as broken:
            return driver_stage.reject(row.row_id, parent_id, DRAFTS, broken.reason, broken.detail, said, kind.name)
        record: SftRow = {
            "id": row.row_id,
            "row_id": row.row_id,
            "parent_id": parent_id,
            "kind": kind.name,
            "topic": topic,
            "messages": self.prompts.ground(kind, slots, passage, language, shots, self.one_line, neighbour),
            "reply": to_reply(fields, self.one_line),
            "model": self.recipe.draft.lessons,
        }
        return driver_stage.RowResult(row.row_id, record, None)


def form_of(said: str) -> str:
    """Tell whether a title or heading is a question: by its mark or, in English, by how it begins."""
    return QUESTION if _ASKS.fullmatch(said.strip()) else TITLE


def _choose_places(passages: Artifact, recipe: Recipe) -> Places:
    """Choose the indices of passages that something leads to, and to no other passage, spread evenly."""
    fixed = next(
        (slots["form"] for name, slots in recipe.slots.items() if recipe.mix.get(name) and "form" in slots), ""
    )
    hashes, fit = array("Q"), bytearray()
    for passage, said in _leads(passages, LEADS):
        hashes.append(int(content_id(is_plain(said))[:16], 16) if said else 0)
        fit.append(bool(said) and passage["split"] == TRAIN and fixed in ("", form_of(said)))
    _, which, counts = np.unique(np.array(hashes, np.uint64), return_inverse=True, return_counts=True)
    places = np.flatnonzero(np.array(fit, bool) & (counts[which] == 1))
    if not len(places):
        said = f" that is of the form {fixed}, as slots wants all," if fixed else ""
        raise UserError(
            f"draft.lessons: of the {count_records(passages):,} passages none is led to by a title or heading of its "
            f"own{said} so there is no lesson in them.\nName a table of your queries as corpus.examples and set "
            "draft.lessons to examples, or name a teacher and set it to teacher."
        )
    return places[_even_places(len(places), recipe.draft.examples)]


def _of_corpus(passages: Artifact, writer: LessonWriter, places: Places) -> Iterator[driver_stage.RowResult]:
    chosen = frozenset(places.tolist())
    for place, (passage, said) in enumerate(_leads(passages)):
        if place in chosen:
            yield writer.write(said, _without(passage, said), passage["id"], passage["title"])


def _of_user(passages: Artifact, writer: LessonWriter, shots: Sequence[Shot]) -> Iterator[driver_stage.RowResult]:
    texts = [shot.passage for shot in shots]
    leaks, ids = _found_among(passages, texts)
    for number, (shot, text) in enumerate(zip(shots, texts, strict=True)):
        said, parent_id = shot.lines[FORM], ids.get(words_digest(text), "")
        passage: PassageRow = {**A_PASSAGE, "id": content_id(text), "title": "", "headings": "", "text": text}
        if number in leaks:
            row_id, detail = content_id(passage["id"], said), "13 words of its passage stand in a held-out document"
            yield driver_stage.reject(row_id, parent_id, DRAFTS, HELD_OUT, detail, said)
        else:
            yield writer.write(said, passage, parent_id, "")


def _found_among(passages: Artifact, texts: Sequence[str]) -> tuple[set[int], dict[str, str]]:
    """Find which texts share a run of 13 words with a held-out passage, and the ids of passages that are a text."""
    runs, owners = word_runs(hash_tokens(texts))
    digests = {words_digest(text) for text in texts}
    leaks: set[int] = set()
    ids: dict[str, str] = {}
    for file in passages.record_files().values():
        rows = passages.read(file.path).select(["id", "text", "digest", "split"]).to_pylist()
        ids |= {row["digest"]: row["id"] for row in rows if row["digest"] in digests}
        held_out, _ = word_runs(hash_tokens([row["text"] for row in rows if row["split"] == HELD_OUT]))
        leaks.update(owners[np.isin(runs, held_out)].tolist())
    return leaks, ids


def _leads(passages: Artifact, columns: list[str] | None = None) -> Iterator[tuple[PassageRow, str]]:
    """Yield the published passages in order, each with the heading or title that leads to it, "" where none does."""
    before: PassageRow | None = None
    for file in passages.record_files().values():
        table = passages.read(file.path)
        for passage in (table.select(columns) if columns else table).to_pylist():
            begins = before is None or before["parent_id"] != passage["parent_id"]
            above = passage["headings"].splitlines() or [passage["title"] if begins else ""]
            is_first = begins or (before is not None and before["headings"] != passage["headings"])
            yield passage, above[-1] if is_first else ""
            before = passage


def _without(passage: PassageRow, said: str) -> PassageRow:
    """Take a title or heading out of its passage, also where the text begins with its line."""
    plain = is_plain(said)
    line, _, rest = passage["text"].partition("\n")
    return {
        **passage,
        "title": "" if is_plain(passage["title"]) == plain else passage["title"],
        "headings": "\n".join(each for each in passage["headings"].splitlines() if is_plain(each) != plain),
        "text": rest.strip() if is_plain(line.lstrip("# ")) == plain else passage["text"],
    }


def _even_places(there: int, at_most: int) -> Places:
    """Return up to `at_most` of so many indices, spread evenly."""
    wanted = min(there, at_most)
    return np.arange(wanted) * there // max(wanted, 1)
