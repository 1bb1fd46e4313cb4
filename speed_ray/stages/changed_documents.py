"""Say what other documents would cost, before anything is spent: a run holds those that it was begun with."""

from collections.abc import Iterator
from dataclasses import dataclass

from speed_ray.documents.spool import in_batches
from speed_ray.errors import UserError
from speed_ray.records import DocumentRow, content_id
from speed_ray.stages.documents import SOURCE_DIGEST, Prepared
from speed_ray.stages.passages import Split, passages_of
from speed_ray.storage.run import ASKED_ABOUT, DOCUMENTS, EXAMPLES, PASSAGES, Run
from speed_ray.storage.shards import Artifact


@dataclass
class Changes:
    """Count the documents that are not as they were, and the passages of those that are there."""

    changed: int = 0
    new: int = 0
    gone: int = 0
    passages: int = 0


def refuse_changed_documents(run: Run, prepared: Prepared, split: Split) -> None:
    """Raise UserError where the run was begun with other documents: with what is new, and how to make only that."""
    artifact = run.artifact(DOCUMENTS)
    before = artifact.plan() if artifact.manifest() is not None else None
    if before is None or before.identity == prepared.plan.identity:
        return
    if {**before.identity, SOURCE_DIGEST: ""} != {**prepared.plan.identity, SOURCE_DIGEST: ""}:
        return  # more is different, which the plan's own refusal tells
    changes = count_changes(artifact, prepared, split)
    raise UserError(
        f"corpus.source: {run.uri} was begun with other documents: {changes.changed:,} have changed, {changes.new:,} "
        f"are new and {changes.gone:,} are gone.\n"
        f"{changes.passages:,} passages would be made{_and_queries(run, changes.passages)}; the others are there.\n"
        f"To make no more than that, begin a new run: the same command with another --run and --set reuse={run.uri}"
    )


def count_changes(before: Artifact, prepared: Prepared, split: Split) -> Changes:
    """Compare documents with those of a published artifact, of each of which two numbers are held."""
    held = {_number(row["document_id"]): _number(row["id"]) for row in before.records()}
    changes = Changes()
    for batch in in_batches((len(row["text"]), row) for row in _others(held, prepared, changes)):
        changes.passages += sum(1 for _ in passages_of(batch, split.splitter))
    changes.gone = len(held)
    return changes


def _others(held: dict[int, int], prepared: Prepared, changes: Changes) -> Iterator[DocumentRow]:
    """Yield the documents that are changed or new, counting them, and take all that are there from `held`."""
    for document in prepared.documents():
        was = held.pop(_number(document["document_id"]), None)
        if was != _number(document["id"]):
            changes.new += was is None
            changes.changed += was is not None
            yield document


def _and_queries(run: Run, passages: int) -> str:
    """Estimate the prompts about some passages by those that the run has planned; "" before it has."""
    planned, source = run.artifact(EXAMPLES).plan(), run.artifact(PASSAGES)
    if planned is None or planned.input not in ASKED_ABOUT or source.manifest() is None:
        return ""
    before = sum(file.rows for file in source.record_files().values())
    return f", and about {round(passages * planned.rows / max(before, 1)):,} prompts asked"


def _number(name: str) -> int:
    return int(content_id(name)[:16], 16)
