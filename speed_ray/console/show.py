"""A record made readable, with its whole lineage: topic and task, or document and passage; prompt, reply, model, seed.

Everything printed here was written by a model or a stranger. It is shown as plain text: no terminal escape codes, no
markup.
"""

from collections.abc import Iterator
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from speed_ray import kinds
from speed_ray.errors import UserError, nearest
from speed_ray.records import Row, titled_text
from speed_ray.storage.run import (
    ARTIFACTS,
    ASKED_ABOUT,
    CANDIDATES,
    CURATED_EXAMPLES,
    DOCUMENTS,
    DRAFTS,
    EXAMPLES,
    FLUENCY,
    NEIGHBOURS,
    OWN_REVISIONS,
    PAIR_SCORES,
    PASSAGES,
    PROPOSED_TASKS,
    RANKED_EXAMPLES,
    REFERENCE_FLUENCY,
    RELEVANCE,
    REVISED_EXAMPLES,
    REVISION_PAIRS,
    REVISIONS,
    REWRITTEN_EXAMPLES,
    SCORED_EXAMPLES,
    TASKS,
    TOPICS,
    VERDICTS,
    Run,
)
from speed_ray.storage.shards import RECORDS, REJECTS, REPLIES, Artifact
from speed_ray.text.terminal import sanitize

FEW = 3
OF_TASK = (TASKS, TOPICS)
OF_LIST = (CANDIDATES, *OF_TASK)
ABOVE = {
    **dict.fromkeys((PASSAGES, NEIGHBOURS), (DOCUMENTS,)),
    PROPOSED_TASKS: (TOPICS,),
    TASKS: (TOPICS,),
    **dict.fromkeys((DRAFTS, CANDIDATES, EXAMPLES, RANKED_EXAMPLES, REWRITTEN_EXAMPLES), OF_TASK),
    **dict.fromkeys((REVISED_EXAMPLES, CURATED_EXAMPLES, SCORED_EXAMPLES), OF_TASK),
    **dict.fromkeys((VERDICTS, REVISIONS, REVISION_PAIRS), OF_LIST),
    OWN_REVISIONS: (REVISIONS, *OF_LIST),
    **dict.fromkeys((FLUENCY, RELEVANCE, PAIR_SCORES), (CURATED_EXAMPLES, *OF_TASK)),
    REFERENCE_FLUENCY: (PASSAGES, DOCUMENTS),
}
# Where the replies are that made a record, first to last, if not in its own artifact: their rows have one id.
ASKED = dict.fromkeys(
    (REVISED_EXAMPLES, CURATED_EXAMPLES, SCORED_EXAMPLES), (EXAMPLES, REWRITTEN_EXAMPLES, REVISED_EXAMPLES)
)


def show_rows(
    run: Run, name: str, console: Console, row: str | None = None, rejects: bool = False, kind: str | None = None
) -> None:
    """Print one row with its whole lineage, or some: of each kind, the first of one kind, a reject of each reason."""
    if name not in ARTIFACTS:
        raise UserError(f"there is no artifact {name!r}; a run has: {', '.join(ARTIFACTS)}")
    if row and (rejects or kind):
        raise UserError("--row shows one row, whatever it is: leave --rejects and --kind away.")
    artifact = run.artifact(name)
    if artifact.plan() is None:
        run.recipe()  # says so where the folder is no run
        raise UserError(f"{artifact.where} was not begun yet. See what there is with: speed-ray status {run.uri}")
    chosen = _by_id(artifact, row) if row else _one_of_each_reason(artifact, kind) if rejects else _few(artifact, kind)
    if not chosen:
        what = f"row {row}" if row else "rejects" if rejects else "records"
        of_kind = f" of kind {kind}" if kind else ""
        if kind and kind not in kinds.kind_names():
            of_kind += nearest(kind, kinds.kind_names())
        raise UserError(f"{artifact.where} holds no {what}{of_kind}.{_instead(artifact, row, rejects)}")
    for record in chosen:
        console.print(_panel(run, artifact, record, whole=row is not None))
    if row is None:
        hint = f"Prompt, raw reply and seed of one: speed-ray show {run.uri} {name} --row ID"
        console.print(hint, markup=False, soft_wrap=True)


def _instead(artifact: Artifact, row: str | None, rejects: bool) -> str:
    if row:
        return "\nA row's id is what its panel's title shows; see some without --row."
    turned_away = any(REJECTS in commit.files for commit in artifact.commits())
    return "\nSee what was turned away with --rejects." if turned_away and not rejects else ""


def _rows(artifact: Artifact) -> Iterator[Row]:
    for commit in artifact.commits():
        if RECORDS in commit.files:
            yield from artifact.read(commit.files[RECORDS].path).to_pylist()


def _by_id(artifact: Artifact, row: str) -> list[Row]:
    for role in (RECORDS, REJECTS):
        if found := _found(artifact, role, row, "id", "row_id"):
            return found
    return []


def _found(artifact: Artifact, role: str, value: str, *columns: str) -> list[Row]:
    """The rows of the first shard that has any with this value in one of the columns."""
    for commit in artifact.commits():
        if role in commit.files:
            table = artifact.read(commit.files[role].path)
            ids = zip(*(table[column].to_pylist() for column in columns if column in table.column_names), strict=True)
            if places := [place for place, of_row in enumerate(ids) if value in of_row]:
                return [row for place in places for row in table.slice(place, 1).to_pylist()]
    return []


def _few(artifact: Artifact, kind: str | None) -> list[Row]:
    chosen: list[Row] = []
    for row in _rows(artifact):
        fresh = kind is not None or "kind" not in row or row["kind"] not in {r["kind"] for r in chosen}
        if kind in (None, row.get("kind")) and fresh:
            chosen.append(row)
        if len(chosen) == FEW:
            break
    return chosen


def _one_of_each_reason(artifact: Artifact, kind: str | None) -> list[Row]:
    """Return the first reject of each reason; files are read only for a reason that none before them has."""
    chosen: dict[str, Row] = {}
    for commit in artifact.commits():
        if REJECTS in commit.files and commit.counts.reasons.keys() - chosen.keys():
            for row in artifact.read(commit.files[REJECTS].path).to_pylist():
                if kind in (None, row.get("kind")):
                    chosen.setdefault(row["reason"], row)
    return list(chosen.values())


def _panel(run: Run, artifact: Artifact, record: Row, whole: bool) -> Panel:
    row_id = record.get("row_id", record.get("id"))
    parts: list[RenderableType] = [_fields(record)]
    if whole:
        parts += [_fields(parent, f"from {name}: ") for name, parent in _ancestors(run, artifact, record)]
        if record.get("relabelled_from"):
            parts += [_fields(row, "positive's passage: ") for row in _passages_of(run, record["positive"])]
        for name in ASKED.get(artifact.name, (artifact.name,)):
            parts += [_reply(name, reply) for reply in _found(run.artifact(name), REPLIES, str(row_id), "row_id")]
    return Panel(Group(*parts), title=Text(f"{artifact.name} {row_id}"), title_align="left")


def _fields(record: Row, prefix: str = "") -> Text:
    text = Text()
    for key, value in record.items():
        if key not in ("id", "row_id", "parent_id"):
            text.append(f"{prefix}{key}: ", style="bold")
            text.append_text(sanitize(_words(value)))
            text.append("\n")
    return text


def _words(value: Any) -> str:
    if not isinstance(value, list):
        return str(value)
    return "\n".join(_words_of_item(item) for item in value)


def _words_of_item(item: Any) -> str:
    if not isinstance(item, dict):
        return str(item)
    if "content" in item:  # a message
        return str(item["content"])
    return ", ".join(f"{key} {_figure(value)}" for key, value in item.items())  # scores, or a gate's number


def _figure(value: Any) -> str:
    if isinstance(value, list):
        return "; ".join(map(_figure, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _reply(name: str, reply: Row) -> Text:
    model = reply["model"] + (f" with adapter {reply['adapter']}" if reply["adapter"] else "")
    text = Text(f"prompt of {name} (trial {reply['trial']}, seed {reply['seed']}, model {model}):\n", style="bold")
    for message in reply["messages"]:
        text.append_text(sanitize(message["content"].strip() + "\n"))
    text.append(f"raw reply ({reply['finish_reason']}, {reply['output_tokens']} tokens):\n", style="bold")
    text.append_text(sanitize(reply["text"] + "\n"))
    return text


def lineage_of(run: Run, artifact: Artifact) -> tuple[str, ...]:
    """List the artifacts that a row was made of, nearest first; what was written is about tasks or about passages."""
    above = ABOVE.get(artifact.name, ())
    if above[-2:] != OF_TASK:
        return above
    plans = [run.artifact(name).plan() for name in (EXAMPLES, CANDIDATES, DRAFTS)]
    about = next((plan.input for plan in plans if plan and plan.input in ASKED_ABOUT), None)
    return (*above[:-2], about, DOCUMENTS) if about else above


def _ancestors(run: Run, artifact: Artifact, record: Row) -> Iterator[tuple[str, Row]]:
    parent_id = record.get("parent_id", record.get("id"))  # what is said of an example has its id
    for name in lineage_of(run, artifact):
        found = _found(run.artifact(name), RECORDS, str(parent_id), "id")
        if not found:
            return
        yield name, {key: value for key, value in found[0].items() if (name, key) != (DOCUMENTS, "text")}  # a book's
        parent_id = found[0].get("parent_id")


def _passages_of(run: Run, text: str) -> list[Row]:
    """Find the passages that say what a positive says which took another's place."""
    passages: Iterator[Any] = _rows(run.artifact(PASSAGES))
    return [row for row in passages if text in (row["text"], titled_text(row))][:FEW]
