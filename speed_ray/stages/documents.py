"""Read a corpus into the `documents` artifact: every file, or line of a table, is a document or a reject.

Two passes: the first reads all files, keeps what they say in a temporary file and some 30 bytes of each document in
memory; the second turns away what repeats another document, and publishes. None of a thousand files ends the job, but
too many of them do.
"""

import contextlib
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np

from speed_ray.curation import quotas
from speed_ray.curation.near_duplicates import Flags, MinHashIndex, find_equal, sketch
from speed_ray.documents import pdf
from speed_ray.documents.faults import CUT_OFF, UNREADABLE
from speed_ray.documents.readers import Parsed, examine, parse_file
from speed_ray.documents.sources import KEY, Source, open_source
from speed_ray.documents.spool import Spool, in_batches, in_order
from speed_ray.errors import UserError
from speed_ray.recipes.corpus_settings import Corpus
from speed_ray.recipes.schema import Recipe
from speed_ray.records import DOCUMENT, HELD_OUT, TRAIN, DocumentRow, content_id
from speed_ray.stages import driver_stage
from speed_ray.storage.fingerprint import code_digests
from speed_ray.storage.run import DOCUMENTS, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.text.language_names import name_of_code
from speed_ray.text.token_hashes import Hashes, Places, hash_tokens

SOURCE_DIGEST = "corpus.source, by its files"  # in a plan's identity
SHOWN = 5  # faults that an error names


@dataclass(frozen=True)
class Prepared:
    """Hold what a corpus becomes: the plan, and the rows, of which nothing is written yet."""

    plan: Plan
    rows: Iterator[driver_stage.RowResult]

    def documents(self) -> Iterator[DocumentRow]:
        """Yield the records among the rows."""
        yield from (cast(DocumentRow, row.record) for row in self.rows if row.record)


@contextlib.contextmanager
def prepare_documents(run: Run, recipe: Recipe) -> Iterator[Prepared]:
    """Read the recipe's corpus, unless it is published as it is now.

    Raises UserError for one that is empty, in another language, or damaged beyond `corpus.max_unreadable`.
    """
    corpus = _corpus_of(recipe)
    with open_source(corpus.source) as source, tempfile.TemporaryDirectory(prefix="speed_ray-documents-") as folder:
        identity = _identity(source, recipe)
        artifact = run.artifact(DOCUMENTS)
        existing = artifact.plan() if artifact.manifest() is not None else None
        if existing is not None and existing.identity == identity:
            yield Prepared(existing, iter(()))
            return
        pdf.refuse_without_extra(source.names)
        scanned = CorpusScan(Path(folder))
        scanned.read(source, recipe)
        scanned.check(recipe)
        plan = Plan(DOCUMENTS, scanned.spool.items, corpus.shard_rows, identity=identity)
        try:
            yield Prepared(plan, scanned.rows(corpus))
        finally:
            scanned.close()


def publish_documents(run: Run, prepared: Prepared) -> None:
    """Publish the documents; each other file or line is a reject with its reason."""
    driver_stage.publish_rows(run.artifact(DOCUMENTS), prepared.plan, DOCUMENT, prepared.rows)


def _corpus_of(recipe: Recipe) -> Corpus:
    if recipe.corpus is None:
        raise UserError(f"{KEY}: this recipe names no documents. Set it to a file, a folder or a pattern.")
    return recipe.corpus


def _identity(source: Source, recipe: Recipe) -> dict[str, object]:
    corpus = _corpus_of(recipe)
    return {
        "code": code_digests(__name__),
        SOURCE_DIGEST: source.digest(),
        "columns": corpus.columns.model_dump(),
        "duplicate_similarity": corpus.duplicate_similarity,
        "held_out": corpus.held_out,
        "languages": list(recipe.languages),
    }


def _parsed(source: Source, recipe: Recipe, folder: Path) -> Iterator[Parsed]:
    """Yield what all files hold, in their order, read in this process or by Ray's workers."""
    workers, reader = _corpus_of(recipe).workers, FileReader(source, recipe)
    if workers.num_workers == 1 or source.is_copy or source.has_tables:  # a table is read a line at a time
        yield from reader.read(source.names)
        return
    from speed_ray.on_ray import map_tasks  # brings Ray, which one process does without

    groups = list(in_batches((source.size(name), name) for name in source.names))
    for batch in in_order(map_tasks.map_tasks("corpus", groups, lambda: reader, workers), folder):
        yield from batch


class FileReader:
    """Read some files of a source, in this process or in a worker."""

    def __init__(self, source: Source, recipe: Recipe) -> None:
        self.folder = source.folder
        self.columns, self.languages = _corpus_of(recipe).columns, list(recipe.languages)

    def read(self, names: list[str]) -> Iterator[Parsed]:
        """Yield what the files hold."""
        for name in names:
            yield from (examine(each, self.languages) for each in parse_file(self.folder, name, self.columns))

    def __call__(self, names: list[str]) -> list[Parsed]:
        return list(self.read(names))


@dataclass
class CorpusScan:
    """Hold a corpus as it was read: its texts in files of a folder, and some bytes of each in memory."""

    folder: Path
    languages: Counter[str] = field(default_factory=Counter)  # codes of the languages that were not asked for
    reasons: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)  # of what was turned away, the first few
    damaged: list[str] = field(default_factory=list)  # of what could not be read, the first few

    def __post_init__(self) -> None:
        self.spool: Spool[Parsed] = Spool(self.folder / "parsed")
        self.index = MinHashIndex(self.folder)
        self.has_several_files = False
        self._fit: list[Flags] = []
        self._texts: list[Hashes] = []
        self._ids: list[Hashes] = []

    def read(self, source: Source, recipe: Recipe) -> None:
        """Read all files."""
        self.has_several_files = len(source.names) > 1
        for batch in in_batches((len(each.text), each) for each in _parsed(source, recipe, self.folder)):
            for each in batch:
                self._count(each)
            self._add(batch)

    def _count(self, parsed: Parsed) -> None:
        if not parsed.reason:
            return
        self.reasons[parsed.reason] += 1
        if parsed.language:
            self.languages[parsed.language] += 1
        shown = self.damaged if parsed.reason in UNREADABLE else self.faults
        if len(shown) < SHOWN:
            shown.append(f"  {parsed.source}: {parsed.reason}, {parsed.detail}")

    def _add(self, batch: list[Parsed]) -> None:
        self.spool.add(batch)
        self.index.add(sketch(hash_tokens(["" if each.reason else each.titled for each in batch])))
        self._fit.append(np.array([not each.reason for each in batch], bool))
        self._texts.append(np.array([int(each.digest[:16] or "0", 16) for each in batch], np.uint64))
        self._ids.append(np.array([int(content_id(each.document_id)[:16], 16) for each in batch], np.uint64))

    def check(self, recipe: Recipe) -> None:
        """Raise UserError for a corpus of which nothing, or too little, can be used."""
        corpus, files = _corpus_of(recipe), self.spool.items
        documents = files - self.reasons.total()
        unreadable = sum(self.reasons[reason] for reason in UNREADABLE)
        found = documents + self.languages.total()
        if unreadable > corpus.max_unreadable * files:
            raise UserError(
                f"{KEY}: {unreadable:,} of {files:,} files or lines of {corpus.source} cannot be read, more than "
                f"corpus.max_unreadable ({corpus.max_unreadable:g}) allows. The first:\n" + "\n".join(self.damaged)
            )
        if self.reasons[CUT_OFF] and not self.has_several_files:
            raise UserError(f"{KEY}: {corpus.source} is damaged:\n" + "\n".join(self.damaged))
        if self.languages.total() > documents:
            [(code, count)] = self.languages.most_common(1)
            raise UserError(
                f"languages: {count:,} of the {found:,} documents of {corpus.source} look like {name_of_code(code)}, "
                f"and the recipe's languages are {', '.join(recipe.languages)}.\n"
                f"Set languages to {{{name_of_code(code)}: 1}}, or name other documents."
            )
        if not documents:
            shown = [*self.damaged, *self.faults]
            why = ["Turned away were:", *shown] if shown else ["Its files are empty."]
            raise UserError(f"{KEY}: {corpus.source} holds no document with text. " + "\n".join(why))

    def rows(self, corpus: Corpus) -> Iterator[driver_stage.RowResult]:
        """Yield the record or reject of everything that was read, in order."""
        repeats = self._repeats(corpus.duplicate_similarity)
        repeated = {first for each in repeats.values() for first in each[each != np.arange(len(each))].tolist()}
        names: dict[int, str] = {}
        for index, parsed in enumerate(self.spool):
            if index in repeated:
                names[index] = parsed.document_id
            found = ((reason, int(first[index])) for reason, first in repeats.items() if first[index] != index)
            reason, first = next(found, ("", index))
            if parsed.reason or reason:
                yield _reject(parsed, parsed.reason or reason, parsed.detail or f"repeats {names[first]}")
            else:
                row = _document(parsed, corpus)
                yield driver_stage.RowResult(row["id"], row, None)

    def _repeats(self, similarity: float | None) -> dict[str, Places]:
        """Map each reason to the index of the row that each row repeats for it, its own where it repeats none."""
        fit, texts, ids = np.concatenate(self._fit), np.concatenate(self._texts), np.concatenate(self._ids)
        everyone = np.arange(len(fit))
        repeats = {"duplicate": find_equal(texts, fit)}
        repeats["duplicate_id"] = find_equal(ids, fit & (repeats["duplicate"] == everyone))
        if similarity is not None:
            alone = fit & (repeats["duplicate"] == everyone) & (repeats["duplicate_id"] == everyone)
            repeats["near_duplicate"] = self.index.find_duplicates(alone, similarity)
        return repeats

    def close(self) -> None:
        """Close the files."""
        self.spool.close()
        self.index.close()


def _document(parsed: Parsed, corpus: Corpus) -> DocumentRow:
    return {
        "id": content_id(parsed.document_id, parsed.title, parsed.text),
        "document_id": parsed.document_id,
        "title": parsed.title,
        "text": parsed.text,
        "source": parsed.source,
        "digest": parsed.digest,
        # By the source's own id, so that a document that is changed stays on its side.
        "split": HELD_OUT if quotas.held_out(parsed.document_id, corpus.held_out) else TRAIN,
    }


def _reject(parsed: Parsed, reason: str, detail: str) -> driver_stage.RowResult:
    row_id = content_id(DOCUMENTS, parsed.source)
    return driver_stage.reject(row_id, "", DOCUMENTS, reason, f"{parsed.source}: {detail}", parsed.text[:1000])
